"""Layers of a network against the network itself: work, widths, and what runs in one kernel."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eightfold.compress.latency.network_layers import network_layers
from eightfold.compress.plan.latency.widths import GroupWidth, NetworkLayer, widest
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.surgery.surgery import applied
from eightfold.compress.trace.trace import trace

INPUT = torch.zeros(1, 3, 32, 32)


class Net(nn.Module):
    """A residual block, a depthwise layer, a concatenation, a gate, a resize and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.up = nn.Conv2d(16, 32, 1)
        self.deep = nn.Conv2d(32, 32, 3, 1, 1, groups=32)
        self.down = nn.Sequential(nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.side = nn.Conv2d(16, 24, 3, 1, 1)
        self.gate = nn.Conv2d(40, 40, 1)
        self.mix = nn.Conv2d(40, 48, 1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = torch.relu(x + self.down(nn.functional.silu(self.deep(self.up(x)))))
        z = torch.cat([y, nn.functional.silu(self.side(y))], 1)
        z = z * torch.sigmoid(self.gate(z.mean((2, 3), keepdim=True)))
        z = nn.functional.interpolate(self.pool(self.mix(z)), scale_factor=2.0)
        found: Tensor = self.head(nn.functional.adaptive_avg_pool2d(z, 1).flatten(1))
        return found


@pytest.fixture(scope="module")
def layers() -> tuple[NetworkLayer, ...]:
    net = Net().eval()
    return network_layers(net, INPUT, trace(net, INPUT))


def named(layers: tuple[NetworkLayer, ...], name: str) -> NetworkLayer:
    return next(layer for layer in layers if layer.name == name)


def test_every_layer_is_there_and_its_work_is_the_trace_s(layers: tuple[NetworkLayer, ...]) -> None:
    kinds = Counter(layer.shape.kind for layer in layers)
    assert kinds["conv"] == 6
    assert kinds["depthwise"] == kinds["linear"] == kinds["concat"] == kinds["resize"] == kinds["max_pool"] == 1
    assert kinds["global_pool"] == 2
    assert kinds["scale"] == 1
    assert kinds["add"] == kinds["activation"] == kinds["norm"] == 0  # they run in the kernels of convolutions
    products = [layer for layer in layers if layer.shape.two_sided or layer.shape.kind == "depthwise"]
    macs = sum(layer.shape.macs(layer.inputs.whole, layer.outputs.whole) for layer in products)
    assert macs == sum(layer.macs for layer in trace(Net().eval(), INPUT).layers)


def test_what_follows_a_convolution_runs_in_its_kernel(layers: tuple[NetworkLayer, ...]) -> None:
    assert named(layers, "stem.0.weight").shape.activation == "relu6"
    down = named(layers, "down.0.weight").shape
    assert (down.residual, down.activation) == (True, "relu")
    assert named(layers, "deep.weight").shape.activation == "silu"
    assert named(layers, "gate.weight").shape.activation == "sigmoid"
    assert named(layers, "mix.weight").shape.activation == ""


def test_widths_after_pruning_are_those_of_the_pruned_network() -> None:
    net = Net().eval()
    graph = trace(net, INPUT)
    layers = network_layers(net, INPUT, graph)
    counts = {group.id: 8 * max(1, group.width // 16) for group in graph.free}
    plan = PrunePlan.from_graph(graph, {name: np.arange(count) for name, count in counts.items()})
    weights = dict(net.named_parameters())
    with applied(net, plan):
        for layer in layers:
            if layer.name in weights:
                outputs, inputs = weights[layer.name].shape[:2]
                depthwise = layer.shape.kind == "depthwise"
                assert layer.widths(counts) == (outputs if depthwise else inputs, outputs)


def test_a_graph_file_s_x_times_sigmoid_is_one_activation() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            found: Tensor = y * torch.sigmoid(y)
            return found

    net = Written().eval()
    (layer,) = network_layers(net, INPUT, trace(net, INPUT))
    assert layer.shape.activation == "silu"


def test_layers_of_one_shape_share_a_table_up_to_the_widest() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 64, 1), nn.Conv2d(64, 16, 1)).eval()
    layers = network_layers(net, INPUT, trace(net, INPUT), batch=4)
    assert list(widest(layers).values()) == [(64, 64)]
    assert layers[0].shape.batch == 4


def test_a_width_counts_what_each_group_adds() -> None:
    width = GroupWidth(4.0, {"a": 1.0, "b": 2.0}, {"a": 8, "b": 4})
    assert (width.whole, width.at({"a": 2}), width.at({"a": 2, "b": 1})) == (20, 14.0, 8.0)
