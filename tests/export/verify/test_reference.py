from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from eightfold.arrays import Arrays
from eightfold.errors import ModelError, VerificationError
from eightfold.export.verify.reference import Reference
from eightfold.export.verify.test_inputs import EXTREME, RANDOM, adversarial_inputs, input_sets_of
from eightfold.export.verify.verify import Tolerance
from eightfold.onnx_graph.tensor_specs import TensorSpec
from tests.export.networks import graph, saved

EXACT = Tolerance(max_rel_error=1e-4)
FLOATS = TensorSpec(name="images", dtype="float32", shape=(1, 3, 4, 4))


def _clipped(path: Path, limit: float) -> Path:
    nodes = [helper.make_node("Clip", ["images", "", "limit"], ["c"]), helper.make_node("Relu", ["c"], ["out"])]
    weights = {"limit": np.array(limit, np.float32)}
    return saved(graph(nodes, {"images": [1, 3, 4, 4]}, {"out": [1, 3, 4, 4]}, weights), path)


def test_what_no_photograph_reaches_is_reached(tmp_path: Path) -> None:
    """A limit at 1.5 changes nothing on images in [0, 1)."""
    before, after = _clipped(tmp_path / "a.onnx", 100), _clipped(tmp_path / "b.onnx", 1.5)
    photographs = {"images": np.random.default_rng(0).random(FLOATS.shape, dtype=np.float32)}
    usual = Reference.of_file(before, {"images": [photographs]}).verify(after, step="clip", tolerance=EXACT)
    assert usual.max_abs_error == 0
    reference = Reference.of_file(before, input_sets_of([FLOATS], photographs))
    words = r"clip \(on extremes\) changed output 'out': max relative error 0\.5 > .*first diverging tensor: 'c'"
    with pytest.raises(VerificationError, match=words):
        reference.verify(after, step="clip", tolerance=EXACT)


def test_every_trial_is_noted(tmp_path: Path) -> None:
    file = _clipped(tmp_path / "a.onnx", 100)
    step = Reference.of_file(file, input_sets_of([FLOATS])).verify(file, step="same", tolerance=EXACT)
    assert step.notes == tuple(
        f"on {name}: relative error 0" for name in (RANDOM, "zeros", "ones", "extremes", "noise")
    )


def _finds_the_first(path: Path) -> Path:
    """Where the first pixel lies that is not zero: no answer where there is none."""
    nodes = [
        helper.make_node("NonZero", ["images"], ["places"]),
        helper.make_node("Gather", ["places", "first"], ["place"], axis=1),
        helper.make_node("Cast", ["place"], ["out"], to=TensorProto.FLOAT),
    ]
    return saved(graph(nodes, {"images": [1, 3, 4, 4]}, {"out": [4, 1]}, {"first": np.array([0])}), path)


def test_what_the_network_itself_does_not_run_on_is_not_asked_of_the_next(tmp_path: Path) -> None:
    file = _finds_the_first(tmp_path / "a.onnx")
    step = Reference.of_file(file, input_sets_of([FLOATS])).verify(file, step="same", tolerance=EXACT)
    assert step.notes[0] == "on zeros: not judged, the network before the step does not run on it"
    assert len(step.notes) == 5
    with pytest.raises(ModelError, match="onnxruntime refuses"):
        Reference.of_file(file, {"images": [{"images": np.zeros(FLOATS.shape, np.float32)}]})


def _normalized(path: Path, order: tuple[str, str]) -> Path:
    """Rounding of a constant image, divided by its own size: what comes out depends on the order of a sum."""
    nodes = [
        helper.make_node("Add", ["images", order[0]], ["one"]),
        helper.make_node("Add", ["one", order[1]], ["both"]),
        helper.make_node("ReduceMean", ["both"], ["mean"], axes=[1, 2, 3]),
        helper.make_node("Sub", ["both", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "gain"], ["out"]),
    ]
    weights = {
        "a": np.random.default_rng(0).random((1, 3, 4, 4)).astype(np.float32),
        "gain": np.array(1e7, np.float32),
    }
    weights["b"] = -weights["a"]
    return saved(graph(nodes, {"images": [1, 3, 4, 4]}, {"out": [1, 3, 4, 4]}, weights), path)


def test_a_trial_that_amplifies_rounding_is_noted_and_not_judged(tmp_path: Path) -> None:
    before, after = _normalized(tmp_path / "a.onnx", ("a", "b")), _normalized(tmp_path / "b.onnx", ("b", "a"))
    step = Reference.of_file(before, input_sets_of([FLOATS])).verify(after, step="order", tolerance=EXACT)
    assert step.notes[0].startswith(f"on {RANDOM}: relative error ")
    assert step.notes[2] == "on ones: not judged, the network amplifies rounding there"


def test_random_values_that_a_network_amplifies_are_no_images() -> None:
    """It sees nothing it knows: what is left is rounding, which counts for images only."""

    def run(inputs: Arrays) -> Arrays:
        return {"out": (inputs["images"] - np.float32(0.5)) * np.float32(1e7) % np.float32(1)}

    def rounded(inputs: Arrays) -> Arrays:
        return run({"images": inputs["images"] + np.float32(1e-7)})

    (random,) = input_sets_of([FLOATS])[RANDOM]
    step = Reference(run, {RANDOM: [random]}).verify(rounded, step="same", tolerance=EXACT)
    assert step.notes == (f"on {RANDOM}: not judged, the network amplifies rounding there",)
    with pytest.raises(VerificationError, match=r"\(on 1 image\) changed output 'out'"):
        Reference(run, {"1 image": [random]}).verify(rounded, step="same", tolerance=EXACT)


def _answers(error: float) -> Callable[[Arrays], Arrays]:
    """A network whose float32 is off by `error` wherever the input is not random."""

    def run(inputs: Arrays) -> Arrays:
        (images,) = inputs.values()
        return {"out": images.astype(np.float64) + (error if float(images.flat[0]).is_integer() else 0)}

    return run


@pytest.mark.parametrize(("error", "judged"), [(1.5e-3, False), (1e-2, True)])
def test_where_float32_itself_is_off_the_answer_in_float64_judges(error: float, judged: bool) -> None:
    input_sets = input_sets_of([FLOATS])
    plain = Reference(_answers(-1e-3), input_sets)
    with pytest.raises(VerificationError, match=r"\(on zeros\)"):
        plain.verify(_answers(error), step="same", tolerance=EXACT)
    reference = Reference(_answers(-1e-3), input_sets, exact=_answers(0))
    if judged:
        with pytest.raises(VerificationError, match=r"\(on zeros\)"):
            reference.verify(_answers(error), step="same", tolerance=EXACT)
    else:
        step = reference.verify(_answers(error), step="same", tolerance=EXACT)
        assert step.notes[1].startswith("on zeros: relative error ")
        assert step.notes[1].endswith(", as near to the answer in float64 as before")


def test_what_float64_excuses_is_recorded_all_the_same() -> None:
    reference = Reference(
        _answers(-1e-3), {"images": [{"images": np.ones((1, 3, 4, 4), np.float32)}]}, exact=_answers(0)
    )
    step = reference.verify(_answers(1e-3), step="same", tolerance=EXACT)
    assert step.max_abs_error == pytest.approx(2e-3)


def test_pixels_get_the_ends_of_their_range() -> None:
    spec = TensorSpec(name="pixels", dtype="uint8", shape=(1, 4, 4, 3))
    found = {name: inputs["pixels"] for name, inputs in adversarial_inputs([spec]).items()}
    assert {array.dtype for array in found.values()} == {np.dtype(np.uint8)}
    assert set(np.unique(found["zeros"])) == {0}
    assert set(np.unique(found["ones"])) == {255}
    assert set(np.unique(found["extremes"])) == {0, 255}
    floats = adversarial_inputs([FLOATS])["extremes"]["images"]
    assert set(np.unique(floats)) == {-EXTREME, EXTREME}
    assert floats[0, 0, 0, 0] != floats[0, 0, 0, 1]
