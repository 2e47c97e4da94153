from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from benchmarks.masked_reference import masked_error
from benchmarks.step_checks import verify_module
from torch import nn

from eightfold.compress.plan_pruning import plan_module
from eightfold.errors import ModelError, UsageError
from eightfold.export.torch import onnx_export
from eightfold.export.torch.onnx_export import Exporter, export_onnx
from eightfold.export.verify.verify import Tolerance, run_onnx
from eightfold.files import sha256_of_file
from eightfold.onnx_graph.onnx_files import opset_of, tensor_specs
from tests.export.networks import DictNet, SmallNet, images, small_net

EXACT = Tolerance(max_rel_error=1e-5)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_the_file_answers_as_the_module(tmp_path: Path, exporter: Exporter) -> None:
    net = small_net()
    file = export_onnx(net, tmp_path / "net.onnx", batch=2, image_size=16, opset=18, exporter=exporter)
    step = verify_module(net, file, images(2), tolerance=EXACT)
    assert step.cosine == pytest.approx(1.0)


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_the_opset_is_the_one_asked_for(tmp_path: Path, opset: int) -> None:
    model = onnx.load(export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16, opset=opset))
    assert opset_of(model) == opset
    onnx.checker.check_model(model)


def test_shapes_are_static_and_names_are_for_people(tmp_path: Path) -> None:
    model = onnx.load(export_onnx(small_net(), tmp_path / "net.onnx", batch=4, image_size=(24, 16)))
    (inputs,), (outputs,) = tensor_specs(model)
    assert (inputs.name, inputs.shape, inputs.dtype) == ("images", (4, 3, 24, 16), "float32")
    assert (outputs.name, outputs.shape) == ("logits", (4, 5))


def test_dictionary_keys_name_the_outputs(tmp_path: Path) -> None:
    model = onnx.load(export_onnx(DictNet(), tmp_path / "net.onnx", batch=1, image_size=16))
    assert [output.name for output in model.graph.output] == ["mask", "scores"]


def test_several_outputs_are_numbered(tmp_path: Path) -> None:
    class Two(SmallNet):
        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:  # type: ignore[override]  # that is the point
            return [self.stem(images), super().forward(images)]

    model = onnx.load(export_onnx(Two(), tmp_path / "net.onnx", batch=1, image_size=16))
    assert [output.name for output in model.graph.output] == ["output0", "output1"]


def test_the_module_is_left_as_it_was(tmp_path: Path) -> None:
    net = small_net().train()
    net.stem[1].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    export_onnx(net, tmp_path / "net.onnx", batch=1, image_size=16)
    assert net.training
    assert not net.stem[1].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


PROGRAM = """
import sys
from eightfold.export.torch.onnx_export import export_onnx
from networks import small_net
for exporter in sys.argv[1:]:
    export_onnx(small_net(), f"{exporter}.onnx", batch=1, image_size=16, opset=18, exporter=exporter)
"""


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    """A process with other hashes of strings, so none of `warm_python`'s."""
    exporters: tuple[Exporter, ...] = ("torchscript", "dynamo")
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", PROGRAM, *exporters], check=True, cwd=tmp_path, env=environment)
    for exporter in exporters:
        here = export_onnx(small_net(), tmp_path / "here.onnx", batch=1, image_size=16, opset=18, exporter=exporter)
        assert sha256_of_file(here) == sha256_of_file(tmp_path / f"{exporter}.onnx")


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_nothing_of_this_machine_is_in_the_file(tmp_path: Path, exporter: Exporter) -> None:
    file = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16, opset=18, exporter=exporter)
    data = file.read_bytes()
    for word in (b"site-packages", b".py", str(Path(__file__).parents[3]).encode(), b"stack_trace"):
        assert word not in data
    assert {entry.key: entry.value for entry in onnx.load(file).metadata_props} == {"exporter": exporter}


def test_the_second_exporter_is_tried_where_the_first_fails(tmp_path: Path) -> None:
    class Fft(SmallNet):
        """TorchScript's exporter has no rule for this operator."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.fft.irfft2(torch.fft.rfft2(images)))

    file = export_onnx(Fft(), tmp_path / "net.onnx", batch=1, image_size=16, opset=18)
    assert {entry.key: entry.value for entry in onnx.load(file).metadata_props} == {"exporter": "dynamo"}


def _branching(graph: onnx.ModelProto, axis: int) -> onnx.ModelProto:
    """The same graph, whose images go through a branch that takes one of their axes away and puts it back."""
    axes = onnx.numpy_helper.from_array(np.array([axis]), "axes")
    nodes = [
        onnx.helper.make_node("Squeeze", ["images", "axes"], ["flat"]),
        onnx.helper.make_node("Unsqueeze", ["flat", "axes"], ["again"]),
    ]
    inner = onnx.helper.make_graph(nodes, "branch", [], [onnx.ValueInfoProto(name="again")], [axes])
    for node in graph.graph.node:
        node.input[:] = ["branched" if name == "images" else name for name in node.input]
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "always"))
    branch = onnx.helper.make_node("If", ["always"], ["branched"], then_branch=inner, else_branch=inner)
    graph.graph.node.insert(0, branch)
    return graph


@pytest.mark.parametrize(("axis", "exporter"), [(0, "torchscript"), (1, "dynamo")])
def test_a_graph_with_branches_that_does_not_run_is_no_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axis: int, exporter: Exporter
) -> None:
    """Axis 0 is the batch of one and may go; axis 1 has three channels."""
    export = onnx_export._EXPORTERS["torchscript"]
    monkeypatch.setitem(onnx_export._EXPORTERS, "torchscript", lambda *args: _branching(export(*args), axis))
    file = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    assert onnx_export.exporter_of(onnx.load(file)) == exporter


def test_a_small_constant_against_a_division_by_zero_stays(tmp_path: Path) -> None:
    """The newer exporter's rewriter takes it for zero, and a network divides by zero on dark images."""

    class Scaled(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images * torch.rsqrt(images.square().mean(1, keepdim=True) + 1e-9)

    model, dark = Scaled().eval(), np.zeros((1, 3, 8, 8), np.float32)
    file = export_onnx(model, tmp_path / "net.onnx", batch=1, image_size=8, exporter="dynamo")
    verify_module(model, file, dark, tolerance=EXACT)


def test_constants_that_the_newer_exporter_loses_are_there(tmp_path: Path) -> None:
    class Clamps(SmallNet):
        """Bounds of one tensor, twice: rewritten as Clip, they would have the same names."""

        def __init__(self) -> None:
            super().__init__()
            self.bounds = torch.nn.ParameterList(torch.tensor(bound) for bound in (-1.0, 1.0, -2.0, 0.5))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            low, high, lower, higher = self.bounds
            return super().forward(torch.clamp(images, low, high) + torch.clamp(images, lower, higher))

    model = Clamps().eval()
    file = export_onnx(model, tmp_path / "net.onnx", batch=1, image_size=16, exporter="dynamo")
    verify_module(model, file, images(1), tolerance=EXACT)


def test_a_model_no_exporter_can_follow_says_what_each_said(tmp_path: Path) -> None:
    class Opaque(SmallNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            values: torch.Tensor = torch.linalg.eigvals(images)
            return values.real

    with pytest.raises(
        ModelError, match=r"Opaque cannot be exported \(torchscript: .*eig.*; dynamo: .*aten\.linalg_eig"
    ):
        export_onnx(Opaque(), tmp_path / "net.onnx", batch=1, image_size=16)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_input_size_is_the_models_own_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"SmallNet does not run on an input of shape \(1, 4, 16, 16\)"):
        export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16, channels=4)


def test_sizes_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch 0"):
        export_onnx(small_net(), tmp_path / "net.onnx", batch=0, image_size=16)


def test_a_batch_gives_the_same_rows_as_single_images(tmp_path: Path) -> None:
    net, rows = small_net(), images(4)
    one = export_onnx(net, tmp_path / "b1.onnx", batch=1, image_size=16)
    four = export_onnx(net, tmp_path / "b4.onnx", batch=4, image_size=16)
    single = np.concatenate([run_onnx(one, {"images": row[None]})["logits"] for row in rows])
    np.testing.assert_allclose(run_onnx(four, {"images": rows})["logits"], single, rtol=1e-4, atol=1e-6)


class Spectrum(nn.Module):
    """A convolution, then the Fourier transform of its result."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum: torch.Tensor = torch.fft.fft2(self.conv(x))
        return spectrum


def test_a_complex_output_is_declared_as_it_runs(tmp_path: Path) -> None:
    model = Spectrum().eval()
    path = export_onnx(model, tmp_path / "m.onnx", batch=1, image_size=8)
    images = torch.rand(1, 3, 8, 8)
    declared = [dim.dim_value for dim in onnx.load(path).graph.output[0].type.tensor_type.shape.dim]
    (found,) = run_onnx(path, {"images": images.numpy()}).values()
    assert declared == list(found.shape) == [1, 4, 8, 8, 2]
    expected = model(images).detach().numpy()
    np.testing.assert_allclose(found[..., 0] + 1j * found[..., 1], expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_parameters_of_other_types_are_named(tmp_path: Path, dtype: torch.dtype) -> None:
    with pytest.raises(
        ModelError, match=rf"Sequential has {str(dtype)[6:]} parameters \(0\.weight\).*model\.float\(\)"
    ):
        export_onnx(nn.Sequential(nn.Conv2d(3, 8, 3)).to(dtype), tmp_path / "m.onnx", batch=1, image_size=8)


def test_a_module_of_torch_export_is_pruned_and_exported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 8, 3)).eval()
    images = torch.rand(1, 3, 8, 8)
    model = torch.export.export(plain, (images,)).module()
    path = export_onnx(model, tmp_path / "m.onnx", batch=1, image_size=8)
    np.testing.assert_allclose(
        next(iter(run_onnx(path, {"images": images.numpy()}).values())), plain(images).detach().numpy(), atol=1e-5
    )
    assert masked_error(model, images, plan_module(model, images)) < 1e-5
