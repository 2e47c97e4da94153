"""MODNet: the definition against published figures and torchvision's MobileNetV2, its three plans, its export."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from benchmarks.masked_reference import masked_error, random_plan
from torch import Tensor, nn

from eightfold.compress.plan_pruning import plan_module
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.trace import trace
from eightfold.errors import ModelError, UnknownNameError
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.zoo.sources.base import SourceOptions
from eightfold.zoo.sources.modnet.network import ConvIBNormReLU, IBNorm, MODNet
from eightfold.zoo.sources.modnet.plans import modnet_options
from eightfold.zoo.sources.registry import load_source

# Parameters by branch of the public code. The low-resolution branch counts the backbone, which is in it.
PARAMETERS = {"backbone": 2_223_872, "lr_branch": 6_192_417, "hr_branch": 245_409, "f_branch": 49_249}


@pytest.fixture(scope="module")
def network() -> MODNet:
    torch.manual_seed(0)
    model = MODNet()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            state = module.state_dict()
            state["running_mean"].normal_(0, 0.1)
            state["running_var"].uniform_(0.5, 1.5)
            state["weight"].uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_sizes_are_the_published_ones(network: MODNet) -> None:
    seen = {name: sum(each.numel() for each in child.parameters()) for name, child in network.named_children()}
    assert seen == PARAMETERS
    assert sum(each.numel() for each in network.parameters()) == 6_487_075  # the backbone once


def test_the_backbone_is_mobilenet_v2(network: MODNet, image: Tensor) -> None:
    theirs = torchvision.models.mobilenet_v2(weights=None).features.eval()
    ours = network.backbone.model.features.state_dict()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.values(), strict=True)))
    with torch.no_grad():
        half, quarter, last = network.backbone(image)
        x = image
        for number, layer in enumerate(theirs):
            x = layer(x)
            expected = {1: half, 3: quarter, 18: last}.get(number)
            assert expected is None or torch.equal(x, expected)


def test_ibnorm_is_batch_norm_beside_instance_norm() -> None:
    norm, x = IBNorm(16).eval(), torch.randn(2, 16, 5, 7) * 3 + 1
    y = norm(x)
    torch.testing.assert_close(y[:, :8], x[:, :8] / (1 + 1e-5) ** 0.5)
    torch.testing.assert_close(y[:, 8:].mean((2, 3)), torch.zeros(2, 8), atol=1e-6, rtol=0)
    torch.testing.assert_close(y[:, 8:].var((2, 3), correction=0), torch.ones(2, 8), atol=1e-4, rtol=0)


def test_heads_have_their_sizes(network: MODNet, image: Tensor) -> None:
    with torch.no_grad():
        semantic, detail, matte = network(image, heads=True)
        assert torch.equal(network(image), matte)
    assert (semantic.shape, detail.shape, matte.shape) == ((1, 1, 4, 6), (1, 1, 64, 96), (1, 1, 64, 96))


def test_a_public_checkpoint_loads_with_both_names_of_the_backbone(network: MODNet, tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    names = [name for name in state if name.startswith("module.lr_branch.backbone.model.features.0.0")]
    assert names == ["module.lr_branch.backbone.model.features.0.0.weight"]
    torch.save(state, tmp_path / "modnet.ckpt")
    with pytest.warns(UserWarning, match="module"):
        loaded = load_source("modnet", SourceOptions(weights=tmp_path / "modnet.ckpt", size=(64, 64)))
    assert (loaded.task.decode, loaded.brings_weights) == ("matte", True)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in loaded.module.state_dict().items())


def test_any_channels_can_go(network: MODNet, image: Tensor) -> None:
    graph = trace(network, (image, True))
    assert not graph.unreached
    plan = random_plan(graph)
    assert masked_error(network, (image, True), plan, graph) < 1e-5


@pytest.mark.parametrize(("scope", "parameters"), [("backbone", 4_951_395), ("taps", 2_898_931), ("whole", 1_649_123)])
def test_plans(scope: str, parameters: int, network: MODNet, image: Tensor) -> None:
    """The first is close to the 4.93 M that pruning the backbone alone by half is reported to leave."""
    model = copy.deepcopy(network)
    report = apply_plan_to_module(model, plan_module(model, (image, True), **modnet_options(scope, 0.5)))
    assert report.parameters_after == parameters
    half, quarter, last = model.backbone(image)
    assert (half.shape[1], quarter.shape[1], last.shape[1]) == ((16, 24, 1280) if scope == "backbone" else (8, 16, 640))
    assert all(width.after[0] % 8 == 0 or width.before[0] == 1 for width in report.widths)
    for block in (module for module in model.modules() if isinstance(module, ConvIBNormReLU)):
        convolution, norm = block.layers[0], next(iter(block.layers[1:]), None)
        assert isinstance(convolution, nn.Conv2d)
        assert not isinstance(norm, IBNorm) or convolution.out_channels == 2 * norm.bnorm.num_features
    assert [tuple(each.shape) for each in model(image, heads=True)] == [(1, 1, 4, 6), (1, 1, 64, 96), (1, 1, 64, 96)]
    model.train()
    torch.autograd.backward([each.mean() for each in model(torch.cat((image, image)), heads=True)])


def test_an_unknown_scope() -> None:
    with pytest.raises(UnknownNameError, match="unknown scope of MODNet 'all'; allowed: backbone, taps, whole"):
        modnet_options("all", 0.5)


def test_the_export_has_the_matte_alone(network: MODNet, image: Tensor, tmp_path: Path) -> None:
    import onnxruntime

    path = export_onnx(copy.deepcopy(network), tmp_path / "modnet.onnx", batch=1, image_size=(64, 96))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(given, network(image).numpy(), atol=1e-4)


def test_a_checkpoint_of_another_backbone(tmp_path: Path) -> None:
    state = MODNet().state_dict()
    state["backbone.model.features.1.conv.3.weight"] = torch.zeros(24, 32, 1, 1)
    torch.save(state, tmp_path / "modnet.ckpt")
    with pytest.raises(
        ModelError, match=r"features\.1\.conv\.3\.weight is \(24, 32, 1, 1\), the model has \(16, 32, 1, 1\)"
    ):
        load_source("modnet", SourceOptions(weights=tmp_path / "modnet.ckpt"))
