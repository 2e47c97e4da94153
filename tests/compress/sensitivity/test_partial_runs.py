"""Recorded passes against whole ones: the same outputs, and only the operators that depend on a change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from eightfold.compress.sensitivity.partial_runs import Recording


class Block(nn.Module):
    """A residual block that works in place, as torchvision's do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.shortcut = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.first(x)).relu_()
        out = self.second(out)
        out += self.shortcut(x)
        return out.relu_()


class PartlyInPlace(nn.Module):
    """Writes into a part of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.first(x)
        out[:, :2] += self.second(x)
        return out


class ReadsBefore(nn.Module):
    """Reads a map that changes later."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.first(x)
        side: Tensor = self.second(out)
        return out.relu_() + side


class Branches(nn.Module):
    """Two heads, a constant that is made in each pass, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x) * torch.tensor([0.5])
        a, b = torch.split(x, 2, 1)
        x = torch.cat([b, a], 1)
        return self.left(x), self.head(self.right(x).mean((2, 3)))


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch left the base class untyped
    """Counts convolutions that run."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


def images() -> Tensor:
    return torch.rand(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("network", [Block, PartlyInPlace, ReadsBefore, Branches])
def test_a_partial_pass_gives_what_a_whole_one_gives(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 1), network()).eval()
    names = [name for name, value in model.named_parameters() if value.dim() > 1]
    weights = dict(model.named_parameters())
    recording = Recording(model, (images(),), [{id(weights[name])} for name in names])
    for name in [*names, *names]:
        own = weights[name].data.clone()
        weights[name].data.mul_(0.5)
        seen = recording.run({id(weights[name])})
        with torch.no_grad():
            wanted = model(images())
        weights[name].data.copy_(own)
        torch.testing.assert_close(seen, wanted, rtol=0, atol=0)
    torch.testing.assert_close(recording.run(()), model(images()))


def test_only_what_depends_on_a_change_runs() -> None:
    model = Branches().eval()
    recording = Recording(model, (images(),), [{id(model.left.weight)}, {id(model.stem.weight)}])
    counts = []
    for weight in (model.left.weight, model.stem.weight):
        weight.data.mul_(0.5)
        with Counting() as ran:  # type: ignore[no-untyped-call]  # as above
            recording.run({id(weight)})
        counts.append(ran.count)
    assert counts == [1, 3]
    assert not recording.whole


def test_maps_that_are_never_read_again_are_released() -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sigmoid(), nn.Tanh()) for _ in range(4))).eval()
    large = torch.rand(2, 4, 128, 128)
    recording = Recording(model, (large,), [{id(model[1][0].weight)}])  # type: ignore[index]
    assert recording.kept_bytes == 2 * large.nbytes  # the input of the changed layer, and the output


def test_values_that_python_reads_are_kept() -> None:
    class Resized(nn.Module):
        """Reads a size from a tensor, as graphs of ONNX files do."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            size = torch.tensor(x.shape[2:]) * 2
            out: Tensor = nn.functional.interpolate(self.layer(x), tuple(size.numpy().tolist()))
            return out

    model = Resized().eval()
    recording = Recording(model, (images(),), [{id(model.layer.weight)}])
    model.layer.weight.data.mul_(0.5)
    torch.testing.assert_close(recording.run({id(model.layer.weight)}), model(images()))
    assert not recording.whole


def test_another_path_runs_as_a_whole() -> None:
    class Fickle(nn.Module):
        """Runs other operators from the second pass on."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.passes = nn.Conv2d(4, 4, 1), 0

        def forward(self, x: Tensor) -> Tensor:
            self.passes += 1
            out: Tensor = self.layer(x if self.passes == 1 else x.relu())
            return out

    model = Fickle().eval()
    recording = Recording(model, (images(),), [{id(model.layer.weight)}])
    torch.testing.assert_close(recording.run({id(model.layer.weight)}), model(images()))
    assert recording.whole
