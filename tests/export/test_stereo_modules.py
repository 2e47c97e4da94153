"""Torch modules of several images: stereo vision, optical flow, trackers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.step_checks import verify_module
from torch import nn

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ModelError, UsageError
from eightfold.export.bundle.export_bundle import export_bundle
from eightfold.export.compare.compare import compare_artifacts
from eightfold.export.fixed_size import batches
from eightfold.export.torch.onnx_export import Exporter, export_onnx
from eightfold.export.verify.module_runs import input_names
from eightfold.export.verify.verify import Tolerance, run_module_arrays, run_onnx
from eightfold.onnx_graph.onnx_files import input_specs, load_onnx
from eightfold.runtime.predict.predictor import Predictor
from tests.export.networks import images, small_net

SMALL = Preprocess(height=16, width=16)


class Stereo(nn.Module):
    """Features of a left image, minus twice those of a right one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))

    def forward(self, left: torch.Tensor, right: torch.Tensor, weight: float = 2.0) -> torch.Tensor:
        cost: torch.Tensor = self.features(left) - weight * self.features(right)
        return cost


def answer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        cost: np.ndarray = Stereo()(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    return cost


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_inputs_have_the_names_of_forward(tmp_path: Path, exporter: Exporter) -> None:
    path = export_onnx(Stereo(), tmp_path / "x.onnx", batch=2, image_size=16, exporter=exporter)
    assert [(spec.name, spec.shape) for spec in input_specs(load_onnx(path))] == [
        ("left", (2, 3, 16, 16)),
        ("right", (2, 3, 16, 16)),
    ]
    pair = {"right": images(2, seed=1), "left": images(2, seed=2)}
    (cost,) = run_onnx(path, pair).values()
    np.testing.assert_allclose(cost, answer(**pair), rtol=1e-5, atol=1e-6)


def test_a_bundle_of_several_batches(tmp_path: Path) -> None:
    bundle = export_bundle(Stereo(), tmp_path / "bundle", preprocess=SMALL, batches=[1, 2, 4])
    left, right = images(4, seed=3), images(4, seed=4)
    with Predictor(bundle) as predictor:
        (cost,) = predictor.run({"left": left, "right": right}).values()
    np.testing.assert_allclose(cost, answer(left, right), rtol=1e-5, atol=1e-6)


def test_a_pair_at_batch_one_is_no_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fed with one image twice, a graph that mixes up its inputs would pass for right."""
    fed: list[tuple[np.ndarray, ...]] = []

    def watched(model: nn.Module, *rows: np.ndarray) -> list[np.ndarray]:
        fed.append(rows)
        return run_module_arrays(model, *rows)

    monkeypatch.setattr(batches, "run_module_arrays", watched)
    export_bundle(Stereo(), tmp_path / "bundle", preprocess=SMALL)
    left, right = fed[0]
    assert left.shape == (1, 3, 16, 16)
    assert np.abs(left - right).max() > 0.5


def test_a_module_is_verified_and_compared_with_its_file(tmp_path: Path) -> None:
    path = export_onnx(Stereo(), tmp_path / "x.onnx", batch=2, image_size=16)
    assert verify_module(Stereo(), path, images(2), tolerance=Tolerance(max_rel_error=1e-4)).cosine == pytest.approx(1)
    found = compare_artifacts(Stereo(), path)
    assert found.outputs[0].max_rel_error < 1e-4
    assert len(found.layers) >= 5  # three layers of features for each of two images, less what is merged
    twins = compare_artifacts(Stereo(), Stereo(), image_shape=(1, 3, 16, 16))
    assert twins.outputs[0].max_abs_error == 0


def test_other_numbers_of_inputs_are_refused(tmp_path: Path) -> None:
    path = export_onnx(small_net(), tmp_path / "x.onnx", batch=1, image_size=16)
    with pytest.raises(UsageError, match=r"1 inputs \(images\) for Stereo; allowed: 2: left, right"):
        compare_artifacts(Stereo(), path)


@pytest.mark.parametrize("asked", [{"preprocess_in_graph": True}, {"decode": True}])
def test_what_is_for_one_image_is_refused(tmp_path: Path, asked: dict[str, bool]) -> None:
    with pytest.raises(ModelError, match=r"Stereo has 2 inputs \(left, right\); allowed: one image input"):
        export_bundle(Stereo(), tmp_path / "bundle", preprocess=SMALL, **asked)  # type: ignore[arg-type]
    assert not (tmp_path / "bundle").exists()


def test_an_input_that_is_no_image_is_named(tmp_path: Path) -> None:
    class Gathering(nn.Module):
        def forward(self, image: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            return image.flatten(1)[:, places]

    with pytest.raises(ModelError, match=r"Gathering does not run on an input of shape \(1, 3, 16, 16\) and \(1, "):
        export_onnx(Gathering(), tmp_path / "x.onnx", batch=1, image_size=16)


def test_which_inputs_a_module_has() -> None:
    class Collecting(nn.Module):
        def forward(self, *images: torch.Tensor, **options: bool) -> torch.Tensor:
            del options
            return images[0]

    class Silent(nn.Module):
        forward = staticmethod(max)  # a built-in function without a signature

    assert input_names(Stereo()) == ("left", "right")
    assert input_names(nn.Conv2d(3, 8, 3)) == ("images",)
    assert input_names(Collecting()) == ("images",)
    assert input_names(nn.Bilinear(1, 1, 1)) == ("input1", "input2")
    assert input_names(Silent()) == ("images",)
