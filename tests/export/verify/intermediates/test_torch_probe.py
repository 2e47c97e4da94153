from __future__ import annotations

import numpy as np
import pytest
import torch

from eightfold.arrays import Array
from eightfold.export.verify.intermediates.probe import Intermediates
from eightfold.export.verify.intermediates.torch_probe import TorchProbe
from tests.export.networks import images, small_net


def _watched(module: torch.nn.Module) -> tuple[Intermediates, dict[str, Array]]:
    seen: dict[int, Array] = {}
    inside = TorchProbe(module).watch({"images": images()}, lambda at, array: seen.__setitem__(at, np.array(array)))
    return inside, {inside.tensors[place].name: array for place, array in seen.items()}


def test_layers_give_their_names_and_calls_between_them_too() -> None:
    net = small_net()
    _, seen = _watched(net)
    assert {"stem.0", "stem.1", "stem.2", "depthwise", "relu", "add", "mean", "head"} <= set(seen)
    with torch.no_grad():
        expected = net.eval().stem(torch.from_numpy(images()))
    np.testing.assert_array_equal(seen["stem.2"], expected.numpy())


def test_each_tensor_knows_what_it_is_made_of() -> None:
    inside, _ = _watched(small_net())
    place = {tensor.name: at for at, tensor in enumerate(inside.tensors)}
    assert set(inside.tensors[place["add"]].sources) == {place["stem.2"], place["relu"]}
    assert inside.outputs == (place["head"],)
    assert place["mean"] in inside.leading_to_outputs()


class _Twice(torch.nn.Module):
    """One layer called twice, one that gives two tensors, one that works in place on a part."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 1)
        self.halves = _Halves()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        low, high = self.halves(self.layer(self.layer(pixels)))
        low[:, :1] = high[:, :1] * 2
        out: torch.Tensor = low + high
        return out


class _Halves(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return pixels.clamp(max=0), pixels.clamp(min=0)


def test_calls_are_numbered_and_tuples_too() -> None:
    inside, seen = _watched(_Twice())
    assert {"layer", "layer#2", "halves.0", "halves.1"} <= set(seen)
    assert not np.array_equal(seen["layer"], seen["layer#2"])
    names = [tensor.name for tensor in inside.tensors]
    through_the_part = {names[place] for place in inside.leading_to_outputs()}
    assert "mul" in through_the_part


def test_a_tensor_is_seen_before_it_is_changed_in_place() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU(inplace=True))
    _, seen = _watched(net)
    assert seen["0"].min() < 0
    assert seen["1"].min() == 0


def test_only_what_is_wanted_is_seen_and_the_module_is_left_as_it_was() -> None:
    net = small_net().train()
    seen: list[int] = []
    TorchProbe(net).watch({"images": images()}, lambda place, _: seen.append(place), {1})
    assert seen == [1]
    assert net.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_shapes_of_the_input_are_no_way_from_it() -> None:
    class Masked(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.relu() * torch.zeros_like(pixels)

    inside, _ = _watched(Masked())
    assert [tensor.name for tensor in inside.tensors] == ["relu", "mul"]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_seen(kind: torch.dtype) -> None:
    class Half(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.to(kind).relu().float()

    _, seen = _watched(Half())
    np.testing.assert_allclose(seen["relu"].astype(np.float32), images(), rtol=1e-2)
