from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from eightfold.errors import ModelError, UsageError
from eightfold.export.simplify import simplifiers
from eightfold.export.simplify import simplify as module
from eightfold.export.simplify.simplifiers import Simplifier, close_waiting
from eightfold.export.simplify.simplify import simplify, simplify_onnx
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.test_inputs import NOT_FINITE, RANDOM
from eightfold.export.verify.verify import run_onnx
from eightfold.files import sha256_of_file
from eightfold.onnx_graph.external_weights import write_without_weights
from tests.export.networks import graph, images, saved, small_net

BROKEN = "path"  # a folder with another onnxslim


@pytest.fixture
def exported(tmp_path: Path) -> Iterator[Path]:
    yield export_onnx(small_net(), tmp_path / "net.onnx", batch=2, image_size=16)
    if (tmp_path / BROKEN).exists():
        close_waiting()


def test_fewer_nodes_and_the_same_answer(exported: Path, tmp_path: Path) -> None:
    before = exported.read_bytes()
    done = simplify_onnx(exported, tmp_path / "small.onnx")
    assert done.nodes_after <= done.nodes_before
    assert done.step.max_rel_error is not None
    assert done.step.max_rel_error < 1e-5
    assert exported.read_bytes() == before
    feeds = {"images": images(2)}
    np.testing.assert_allclose(run_onnx(done.path, feeds)["logits"], run_onnx(exported, feeds)["logits"], atol=1e-6)


def test_the_step_says_how_each_tool_fared(exported: Path) -> None:
    step = simplify_onnx(exported).step
    assert step.tool == "onnxsim + onnxslim + passes"
    tools = ["onnxsim", "onnxslim", "onnxsim + onnxslim + passes"]
    input_sets = [f"on {RANDOM}", "on zeros", "on ones", "on extremes", "on noise"]
    assert [note.partition(":")[0] for note in step.notes] == tools + input_sets


def test_in_place_and_deterministic(exported: Path, tmp_path: Path) -> None:
    other = simplify(exported, tmp_path / "other.onnx")
    assert simplify(exported) == exported
    assert sha256_of_file(exported) == sha256_of_file(other)


def test_a_tool_that_crashes_is_noted_and_passed_over(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOOLS", ("onnxsim", "no-such-tool"))
    _break_onnxslim(monkeypatch, exported.parent)
    step = simplify_onnx(exported).step
    assert step.tool == "onnxsim + passes"
    assert step.notes[1] == "no-such-tool: crashed (signal 6)"


def test_a_tool_that_hangs_is_stopped(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOOLS", ("onnxslim",))
    _break_onnxslim(monkeypatch, exported.parent, "import time; time.sleep(600)")
    done = simplify_onnx(exported, time_limit_s=1)
    assert done.step.tool == "passes"
    assert done.step.notes[0] == "onnxslim: stopped at the time limit"


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(exported: Path, limit: float) -> None:
    before = exported.read_bytes()
    with pytest.raises(UsageError, match=r"a time limit of .* s; allowed: more than 0"):
        simplify_onnx(exported, time_limit_s=limit)
    assert exported.read_bytes() == before


def test_a_tool_that_changes_the_answer_is_passed_over(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    liar = """
from onnx import numpy_helper
def slim(model):
    del model.graph.node[1:]
    model.graph.node[0].output[0] = "logits"
    return model
"""
    _break_onnxslim(monkeypatch, exported.parent, liar)
    step = simplify_onnx(exported).step
    assert step.tool == "onnxsim + passes"
    assert any(note.startswith("onnxsim + onnxslim: passed over") for note in step.notes)


def test_a_graph_that_is_minimal_stays(tmp_path: Path) -> None:
    model = graph([helper.make_node("Relu", ["images"], ["out"])], {"images": [1, 3]}, {"out": [1, 3]})
    done = simplify_onnx(saved(model, tmp_path / "relu.onnx"))
    assert (done.nodes_before, done.nodes_after) == (1, 1)


def test_dynamic_axes_are_refused_with_the_remedy(tmp_path: Path) -> None:
    model = graph([helper.make_node("Relu", ["images"], ["out"])], {"images": ["n", 3]}, {"out": ["n", 3]})
    with pytest.raises(ModelError, match=r"shape \(n, 3\); allowed: static shapes; freeze it"):
        simplify(saved(model, tmp_path / "relu.onnx"))


def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not onnx at all")
    with pytest.raises(ModelError, match="allowed: a whole ONNX file"):
        simplify(tmp_path / "x.onnx")


@pytest.mark.parametrize("name", ["x.json", "x.textproto"])
def test_a_file_in_another_form_is_refused(tmp_path: Path, name: str) -> None:
    """onnx goes by the suffix, and has errors of its own for each."""
    (tmp_path / name).write_text('{"kind": "preprocess"}')
    with pytest.raises(ModelError, match=r"cannot read .* as ONNX \(.*allowed: a whole ONNX file"):
        simplify(tmp_path / name)


def test_a_file_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"x\.onnx as ONNX \(No such file or directory\); .*; check the path$"):
        simplify(tmp_path / "x.onnx")


def test_a_network_that_answers_with_nan_is_noted(tmp_path: Path) -> None:
    """It agrees with whatever is made of it."""
    nodes = [helper.make_node("Mul", ["images", "scale"], ["out"])]
    model = graph(nodes, {"images": [1, 3]}, {"out": [1, 3]}, {"scale": np.array([np.nan, 1, 1], np.float32)})
    notes = simplify_onnx(saved(model, tmp_path / "nan.onnx")).step.notes
    assert f"on {RANDOM}: {NOT_FINITE}, which shows no error" in notes


def test_a_truncated_file_is_refused(exported: Path) -> None:
    exported.write_bytes(exported.read_bytes()[:200])
    with pytest.raises(ModelError, match=r"cannot read .*net\.onnx as ONNX|holds no graph"):
        simplify(exported)


def _break_onnxslim(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str = "import os; os.abort()") -> None:
    """Let processes that start from now on find another `onnxslim` first; the `exported` fixture ends them."""
    close_waiting()
    place = folder / BROKEN
    place.mkdir()
    (place / "onnxslim.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")]))


def test_the_result_is_valid_onnx(exported: Path) -> None:
    onnx.checker.check_model(str(simplify(exported)))


def test_tools_start_from_the_original_where_our_passes_change_the_answer(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: onnx.ModelProto) -> dict[str, int]:
        model.graph.node[0].op_type = "Relu"
        return {}

    monkeypatch.setattr(module, "apply_passes", wrong)
    step = simplify_onnx(exported).step
    assert step.tool == "onnxsim + onnxslim"
    assert any(note.startswith("from the original once more") for note in step.notes)


def test_old_files_list_their_weights_as_inputs(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *("scale", "shift", "mean", "var")], ["n"]),
        helper.make_node("Identity", ["n"], ["out"]),
    ]
    weights = {name: np.full(4, 0.5, np.float32) for name in ("scale", "shift", "mean", "var")}
    weights["w"] = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    model = graph(nodes, {"images": [1, 3, 8, 8]}, {"out": [1, 4, 6, 6]}, weights)
    model.graph.input.extend(helper.make_tensor_value_info(name, 1, array.shape) for name, array in weights.items())
    model.ir_version, model.opset_import[0].version = 3, 8
    done = simplify_onnx(saved(model, tmp_path / "old.onnx"), tmp_path / "new.onnx")
    assert done.nodes_after == 1
    onnx.checker.check_model(str(done.path), full_check=True)


def test_what_a_float16_graph_rounds_is_no_difference(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["images", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["s"]),
        helper.make_node("Identity", ["s"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["q"]),
        helper.make_node("Add", ["q", "b"], ["out"]),
    ]
    weights = {name: rng.standard_normal((64, 64)).astype(np.float16) for name in "wv"}
    weights["b"] = rng.standard_normal(64).astype(np.float16)
    model = graph(nodes, {"images": [8, 64]}, {"out": [8, 64]}, weights)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    done = simplify_onnx(saved(model, tmp_path / "half.onnx"))
    assert not [note for note in done.step.notes if "passed over" in note]
    assert done.nodes_after <= 4


def test_a_loaded_tool_serves_one_graph_after_another(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = simplify_onnx(exported, tmp_path / "a.onnx")
    monkeypatch.setattr(Simplifier, "_launch", None)  # none can be started
    second = simplify_onnx(exported, tmp_path / "b.onnx")
    assert first.step.notes == second.step.notes
    assert sha256_of_file(first.path) == sha256_of_file(second.path)


def test_a_tool_that_ended_because_it_had_nothing_to_do_is_started_again(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_waiting()
    monkeypatch.setattr(simplifiers, "IDLE_S", 0.0)
    with Simplifier.started("onnxslim") as tool:
        while tool.usable():
            time.sleep(0.01)
        assert tool.run(_lean(exported), exported.with_name("slim.onnx"), 60) == ""
    assert onnx.load(exported.with_name("slim.onnx"), load_external_data=False).graph.node


@pytest.mark.parametrize("idle", [True, False])
def test_the_processes_end_with_the_one_that_started_them(
    exported: Path, monkeypatch: pytest.MonkeyPatch, idle: bool
) -> None:
    """SIGKILL leaves no time to end others: they notice."""
    if not idle:
        _break_onnxslim(monkeypatch, exported.parent, "import time\ndef slim(model):\n    time.sleep(600)\n")
    code = """
import sys
from pathlib import Path
from eightfold.export.simplify.simplifiers import Simplifier
with Simplifier.started("onnxslim") as tool:
    print(tool._process.pid, flush=True)
    if sys.argv[1] == "False":
        tool.run(Path(sys.argv[2]), Path(sys.argv[2] + "x"), 600)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(idle), str(_lean(exported))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        group = int(asking.stdout.readline())
        if not idle:
            _until(lambda: _members(group) == 2)
        asking.kill()
    _until(lambda: _members(group) == 0)


def _lean(exported: Path) -> Path:
    target = exported.with_name("lean.onnx")
    write_without_weights(onnx.load(exported), target)
    return target


def _members(group: int) -> int:
    """Living processes of a process group."""
    states = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
            states += [state] if int(of) == group else []
    return sum(state != "Z" for state in states)


def _until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.01)
