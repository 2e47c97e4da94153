"""What the Python runtime costs on top of the model: each line is a promise, measured in one run.

Usage: python benchmarks/predictor.py [--requests 20000] [--quick]

MobileNetV2 with random weights at 224x224 on onnxruntime with 2 threads, unless a line says otherwise. Ratios are of
medians, both sides taking turns in one run. "CPU" means CPU time of the calling thread, with every library held
to one thread: what it would take on a quiet machine, which other programs hardly disturb.
The table is printed and kept in benchmarks/results/predictor.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision
from numpy.typing import NDArray

import eightfold as ef
from eightfold.calib.images.geometry import Placement
from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.bundle.write import onnx_artifact, write_bundle
from eightfold.runtime.backends.ort import OrtSession
from eightfold.runtime.bench.interleave import Clock, Schedule, alternate
from eightfold.runtime.bench.timing import Interval, speedup
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess.yolo import YoloBoxes
from eightfold.runtime.predict.predictor import Predictor
from eightfold.text_table import text_table

RESULT = Path(__file__).parent / "results" / "predictor.md"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
COLD_START = """
import time
begin = time.perf_counter()
import eightfold as ef
with ef.Predictor({bundle!r}) as predictor:
    predictor.predict({image!r})
print(time.perf_counter() - begin, time.process_time())
"""


@dataclass(frozen=True)
class Line:
    """One promise and what was measured."""

    what: str
    measured: str
    bar: str
    holds: bool


def make_bundle(folder: Path, size: int = 224) -> Path:
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2(weights=None).eval()
    onnx = ef.simplify(ef.export_onnx(network, folder / f"mobilenet_v2-{size}.onnx", batch=1, image_size=(size, size)))
    inside = "onnx/b1.onnx"
    return Path(
        write_bundle(
            folder / f"bundle-{size}",
            name="mobilenet_v2",
            task=Task(kind="classify", decode="classify"),
            preprocess=Preprocess(height=size, width=size, **IMAGENET),
            artifacts=[onnx_artifact(onnx, id="b1", inside=inside, variant="dense")],
            files={inside: onnx},
        )
    )


def photo(height: int = 1080, width: int = 1920) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def ratio_of(
    slow: Callable[[], object], fast: Callable[[], object], seconds: float, clock: Clock = time.perf_counter
) -> Interval:
    """How many times the time of `fast` it takes to do `slow`, in many short turns: neighbours come and go."""
    samples = alternate({"slow": slow, "fast": fast}, Schedule(seconds=seconds, rounds=200, block_s=0.02), clock=clock)
    return speedup(samples["slow"].times_s, samples["fast"].times_s)


def cpu_ms(call: Callable[[], object], seconds: float) -> float:
    """Median CPU time of a call in this thread."""
    samples = alternate({"it": call}, Schedule(seconds=seconds), clock=time.thread_time)
    return float(np.median(samples["it"].times_s)) * 1e3


def overhead_of_run(bundle: Path, seconds: float) -> Line:
    """Against onnxruntime's own `run_with_iobinding` on the same session and tensor, everything bound beforehand."""
    rows = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    with Predictor(bundle, backend="onnxruntime", threads=2) as predictor:
        predictor.warmup()
        session = predictor._pools[1].session
        assert isinstance(session, OrtSession)
        binding, result = session.raw.io_binding(), np.empty(session.outputs[0].shape, np.float32)
        binding.bind_cpu_input(session.inputs[0].name, rows)
        binding.bind_output(session.outputs[0].name, "cpu", 0, np.float32, result.shape, result.ctypes.data)
        ratio = ratio_of(lambda: predictor.run(rows), lambda: session.raw.run_with_iobinding(binding), seconds)
    measured = f"{ratio.value:.3f}x [{ratio.low:.3f}, {ratio.high:.3f}]"
    return Line("Predictor.run / raw run_with_iobinding", measured, "1.03x", ratio.value <= 1.03)


def overhead_alone(seconds: float, folder: Path) -> Line:
    """The same on a network that does nothing with an input of that size, so that only the runtime is left."""
    network = torch.nn.Sequential(torch.nn.MaxPool2d(1, 112), torch.nn.Flatten()).eval()
    onnx = ef.export_onnx(network, folder / "nothing.onnx", batch=1, image_size=224)
    bundle = write_bundle(
        folder / "nothing",
        name="nothing",
        task=Task(kind="classify", decode="classify"),
        preprocess=Preprocess(height=224, width=224),
        artifacts=[onnx_artifact(onnx, id="b1", inside="b1.onnx", variant="dense")],
        files={"b1.onnx": onnx},
    )
    rows = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    with Predictor(bundle, backend="onnxruntime", threads=1) as predictor:
        microseconds = 1e3 * cpu_ms(lambda: predictor.run(rows), seconds)
    # 3 % of MobileNetV2's 2.6 ms with two threads.
    return Line("all of Predictor.run but the model (CPU)", f"{microseconds:.0f} us", "78 us", microseconds <= 78)


def preprocessing(seconds: float) -> Line:
    preprocess = Preprocess(height=224, width=224, **IMAGENET)
    frame, into = photo(), np.empty((3, 224, 224), np.float32)
    mean = [255 * value for value in IMAGENET["mean"]]
    deviation = np.array(IMAGENET["std"], np.float32)[None, :, None, None]

    def opencv() -> None:
        blob = cv2.dnn.blobFromImage(frame, 1 / 255, (224, 224), mean, swapRB=True)
        np.divide(blob, deviation, out=blob)

    cv2.setNumThreads(1)
    ratio = ratio_of(lambda: preprocess(frame, into), opencv, seconds, time.thread_time)
    return Line("preprocess 1920x1080 / blobFromImage + normalise (CPU)", str(ratio), "1.00x", ratio.value <= 1)


def decoding(seconds: float, found: int) -> Line:
    """8,400 YOLOv8 candidates of 80 classes; `found` of them pass the threshold, crowded so that many overlap."""
    random = np.random.default_rng(0)
    output = np.zeros((1, 84, 8400), np.float32)
    output[0, :2] = random.uniform(0, 640, (2, 8400))
    output[0, 2:4] = random.uniform(10, 200, (2, 8400))
    output[0, 4:] = random.uniform(0, 0.2, (80, 8400))
    output[0, 4 + random.integers(0, 80, found), random.choice(8400, found, replace=False)] = random.uniform(
        0.3, 1, found
    )
    placement, decoder = Placement((1080, 1920), (360, 640), (140, 0), (640, 640)), YoloBoxes()
    median_ms = cpu_ms(lambda: decoder({"output0": output}, [placement]), seconds)
    what = f"decode 8,400 x 80 + NMS, {found} above the threshold (CPU)"
    return Line(what, f"{median_ms:.2f} ms", "2 ms", median_ms < 2)


def threads(bundle: Path, each: int) -> Line:
    """8 threads ask one predictor; answers are compared with those of one thread."""
    rows = np.random.default_rng(0).standard_normal((16, 1, 3, 96, 96)).astype(np.float32)
    with Predictor(bundle, threads=1) as predictor, ThreadPoolExecutor(8) as pool:
        expected = [next(iter(predictor.run(row).values())) for row in rows]

        def work(number: int) -> int:
            answers = (predictor.run(rows[index % 16]) for index in range(number, number + each))
            return sum(
                np.array_equal(next(iter(answer.values())), expected[index % 16])
                for index, answer in enumerate(answers, start=number)
            )

        same = sum(pool.map(work, range(8)))
    return Line(f"8 threads x {each} requests", f"{same} of {8 * each} the same", "all", same == 8 * each)


def memory(bundle: Path, requests: int) -> Line:
    """Growth of the resident set over `requests` predictions from images, after 200 to warm up."""
    image = photo(96, 96)
    with Predictor(bundle, threads=2) as predictor:
        for _ in range(200):
            predictor.predict(image)
        before = resident_bytes()
        for _ in range(requests):
            predictor.predict(image)
        growth = (resident_bytes() - before) / 1e6
    return Line(f"memory growth over {requests:,} requests", f"{growth:.2f} MB", "5 MB", growth < 5)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def cold_start(bundle: Path, folder: Path, times: int) -> Line:
    """From `import eightfold` to the first answer, in new processes with a warm file cache."""
    image = folder / "photo.jpg"
    cv2.imwrite(str(image), photo(480, 640))
    program = COLD_START.format(bundle=str(bundle), image=str(image))
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(times)
    ][1:]
    wall_s, cpu_s = np.median(np.array(runs, float), axis=0)
    return Line(
        f"cold start, median of {len(runs)}", f"{wall_s:.2f} s (CPU {cpu_s:.2f} s)", "0.6 s", bool(wall_s < 0.6)
    )


def lines(seconds: float, requests: int, folder: Path) -> Iterator[Line]:
    bundle, small = make_bundle(folder), make_bundle(folder, size=96)
    yield overhead_of_run(bundle, seconds)
    yield overhead_alone(seconds, folder)
    yield preprocessing(seconds)
    yield from (decoding(seconds, found) for found in (20, 100, 400))
    yield threads(small, max(10, requests // 20))
    yield memory(small, requests)
    yield cold_start(bundle, folder, 11)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="try the program; keep no result")
    arguments = parser.parse_args()
    seconds, requests = (0.5, 200) if arguments.quick else (6.0, arguments.requests)
    with tempfile.TemporaryDirectory() as folder:
        table = [("what", "measured", "bar", "holds")]
        table += [
            (line.what, line.measured, line.bar, "yes" if line.holds else "NO")
            for line in lines(seconds, requests, Path(folder))
        ]
    device = ef.describe_device()
    text = "\n".join([device.line(), f"before: {device.state.describe()}", "", *text_table(table, left={0, 1, 2, 3})])
    print(text)
    if not arguments.quick:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(f"# benchmarks/predictor.py\n\n```\n{text}\n```\n")


if __name__ == "__main__":
    main()
