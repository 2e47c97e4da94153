"""Networks that take pixels against those that take planes of floats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eightfold.arrays import Arrays
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import UsageError
from eightfold.export.bundle.export_bundle import export_bundle
from eightfold.export.compare.compare import compare_artifacts
from eightfold.export.compare.compare_bundles import compare_bundles
from eightfold.export.compare.feeds import feeds_of, rules_for
from eightfold.export.compare.runnables import Runnable, runnable_of
from eightfold.export.in_graph.in_graph import put_preprocess_in
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.verify import Tolerance
from tests.export.networks import images, small_net

PREPROCESS = Preprocess(height=16, width=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planes")
    return export_bundle(small_net(), folder / "net", preprocess=PREPROCESS, batches=(2,), name="net")


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pixels")
    return export_bundle(
        small_net(), folder / "net", preprocess=PREPROCESS, batches=(2,), name="net", preprocess_in_graph=True
    )


def test_each_is_fed_in_its_own_form(planes: Path, pixels: Path) -> None:
    subjects = runnable_of(planes), runnable_of(pixels)
    floats, bytes = feeds_of(subjects, None, None, (1, 3, 1, 1))
    (rows,), (images,) = floats.values(), bytes.values()
    assert (rows.dtype.name, rows.shape) == ("float32", (2, 3, 16, 16))
    assert (images.dtype.name, images.shape) == ("uint8", (2, 16, 16, 3))
    for row, image in zip(rows, images, strict=True):  # the reference is float64 numpy
        np.testing.assert_allclose(row, PREPROCESS.reference(image), atol=1e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_two_artifacts(planes: Path, pixels: Path, turned: bool) -> None:
    pair = (pixels, planes) if turned else (planes, pixels)
    comparison = compare_artifacts(*pair)
    assert comparison.outputs[0].max_rel_error < 1e-4
    assert comparison.first_beyond == ""
    assert len([layer for layer in comparison.layers if layer.difference]) > 3
    image = {"images": np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)}
    assert compare_artifacts(*pair, inputs=image).outputs[0].max_rel_error < 1e-4


def test_two_bundles(planes: Path, pixels: Path) -> None:
    def prepared(subject: Runnable) -> Arrays:
        """As an application does it: every image through the bundle's own rules."""
        rules = rules_for(subject, None)
        assert rules is not None
        seen = np.random.default_rng(3).integers(0, 256, (2, 40, 30, 3)).astype(np.uint8)
        return {"images": np.stack([rules(image) for image in seen])}

    (pair,) = compare_bundles(planes, pixels, inputs=prepared).pairs
    assert pair.outputs[0].max_rel_error < 1e-4


def test_a_file_and_a_module_take_rules_from_the_caller(planes: Path, tmp_path: Path) -> None:
    file = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    put_preprocess_in(file, PREPROCESS, tolerance=Tolerance(max_rel_error=1e-3))
    assert compare_artifacts(file, small_net(), preprocess=PREPROCESS).outputs[0].max_rel_error < 1e-4
    other = PREPROCESS.model_copy(update={"std": (1.0, 1.0, 1.0)})
    assert compare_artifacts(file, small_net(), preprocess=other).outputs[0].max_rel_error > 0.01
    with pytest.raises(UsageError, match=r"net\.onnx takes pixels and SmallNet does not; allowed: a Preprocess"):
        compare_artifacts(file, small_net())
    with pytest.raises(UsageError, match=r"inputs images float32, where .* takes pixels; allowed: uint8 images"):
        compare_artifacts(file, small_net(), preprocess=PREPROCESS, inputs={"images": images()})
    with pytest.raises(UsageError, match=r"takes images 1x16x16x3, .* takes images 2x3x16x16; allowed: two networks"):
        compare_artifacts(file, planes)


def test_rules_take_the_form_of_the_network(planes: Path, pixels: Path) -> None:
    subjects = runnable_of(planes), runnable_of(pixels)
    for given in (None, PREPROCESS.at_size(32, 32)):
        for subject, form in zip(subjects, (("nchw", "float32"), ("nhwc", "uint8")), strict=True):
            rules = rules_for(subject, given)
            assert rules is not None
            assert ((rules.layout, rules.dtype), rules.height) == (form, 16)
    assert rules_for(Runnable("net", lambda inputs: inputs), None, subjects[1]) == rules_for(subjects[0], None)


def test_both_are_measured_on_the_same_labelled_images(
    planes: Path, pixels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from eightfold.cli.app import main

    rng = np.random.default_rng(0)
    for label in "abcde":
        (tmp_path / label).mkdir()
        for place in range(2):
            Image.fromarray(rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)).save(tmp_path / label / f"{place}.png")
    for pair in ((planes, pixels), (f"{planes}:net-b2", f"{pixels}:net-b2")):
        monkeypatch.setattr("sys.argv", ["eightfold", "compare", *map(str, pair), "--data", str(tmp_path)])
        assert main() == 0
        assert "top-1 on 10 images" in (said := capsys.readouterr().out)
        assert "the two agree on 100.00%" in said
