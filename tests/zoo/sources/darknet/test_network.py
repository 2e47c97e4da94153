from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.masked_reference import masked_error, random_plan
from torch import nn

from eightfold.compress.trace.trace import trace
from eightfold.zoo.sources.darknet.activations import FORMULAS, MODULES
from eightfold.zoo.sources.darknet.cfg import read_cfg
from eightfold.zoo.sources.darknet.convolutions import DarknetNorm
from eightfold.zoo.sources.darknet.network import build_network
from tests.zoo.sources.darknet.networks import (
    NET,
    PACKAGE,
    RESIDUAL,
    assert_as_darknet,
    lively,
    needs_darknet,
    network_of,
    thin,
    write_unpruned,
)

# Of the package's files, those that differ in kind; benchmarks/darknet_parity.py compares them all at full width.
NAMES = ("go", "resnext50", "strided", "yolov1-tiny", "yolov3-spp")
KNOWN_TO_DARKNET = (
    "linear", "leaky", "relie", "relu", "elu", "logistic", "tanh", "hardtan", "loggy", "ramp", "selu", "plse", "lhtan",
    "stair",
)  # fmt: skip
SQUARE = f"{NET}[convolutional]\nfilters=8\nsize=3\nstride=2\npad=1\nactivation=linear\n"


@needs_darknet
@pytest.mark.parametrize("name", NAMES)
def test_thin_copies_of_the_package_answer_as_darknet(name: str, tmp_path: Path) -> None:
    network = lively(build_network(thin(read_cfg(PACKAGE / f"{name}.cfg"))))
    assert_as_darknet(network, *write_unpruned(network, tmp_path))


BRANCHES = (
    *(f"[activation]\nactivation={name}\n" for name in KNOWN_TO_DARKNET),
    "[maxpool]\nsize=2\nstride=1\n",
    "[maxpool]\nsize=3\nstride=2\n",
    "[maxpool]\nsize=5\nstride=1\n",
    "[maxpool]\nsize=2\nstride=2\n[maxpool]\nsize=4\nstride=1\n",
    "[maxpool]\nsize=3\nstride=3\npadding=0\n",
    "[upsample]\nstride=3\nscale=.5\n",
    "[reorg]\nstride=2\n",
    "[reorg]\nstride=2\nreverse=1\n",
    "[convolutional]\nfilters=12\nsize=3\nstride=2\npad=1\nactivation=linear\n[shortcut]\nfrom=0\nactivation=relu\n",
    "[convolutional]\nfilters=4\nsize=1\nactivation=linear\n[shortcut]\nfrom=0\nalpha=.5\nbeta=2\nactivation=linear\n",
    "[crop]\ncrop_width=9\ncrop_height=8\n",
    "[local]\nfilters=4\nsize=3\nstride=2\npad=1\nactivation=leaky\n",
    "[connected]\noutput=12\nactivation=leaky\n",
)


@needs_darknet
def test_layers_and_activations_answer_as_darknets(tmp_path: Path) -> None:
    """One network with a branch for each; the last layer of every branch is compared."""
    text, layers, last = SQUARE, [], 0
    for branch in BRANCHES:
        last += branch.count("[")
        layers.append(last)
        text, last = f"{text}{branch}[route]\nlayers=0\n", last + 1
    network = network_of(text)
    with torch.no_grad():  # so that values reach from -8 to 8, where the formulas differ
        network.get_parameter("layers.0.operator.weight").mul_(6)
    assert_as_darknet(network, *write_unpruned(network, tmp_path), layers)


@needs_darknet
def test_softmax_with_groups_and_temperature_answers_as_darknets(tmp_path: Path) -> None:
    network = network_of(f"{SQUARE}[connected]\noutput=12\nactivation=leaky\n[softmax]\ngroups=3\ntemperature=2\n")
    assert_as_darknet(network, *write_unpruned(network, tmp_path))


WIDE = f"{NET}[convolutional]\nbatch_normalize=1\nfilters=32\nsize=3\nstride=2\npad=1\nactivation=mish\n"
# Channels that go on in part, change places, or meet fewer others.
ODD_WAYS = (
    "[convolutional]\nfilters=64\nsize=3\npad=1\nstride=2\nactivation=relu\n[shortcut]\nfrom=0\nactivation=relu\n",
    "[convolutional]\nfilters=16\nsize=3\npad=1\nactivation=relu\n[shortcut]\nfrom=0\nactivation=relu\n",
    "[reorg3d]\nstride=2\n",
    "[route]\nlayers=0\ngroups=2\ngroup_id=1\n",
    "[connected]\noutput=64\nactivation=leaky\n",
    "[se]\nreduction=2\n",
    "[depthwise]\nfilters=32\nsize=3\npad=1\nactivation=swish\n[avgpool]\n[convolutional]\nfilters=32\nsize=1\nactivation="
    "logistic\n[scale_channels]\nfrom=1\n",
)


def test_the_norm_divides_by_the_deviation_plus_a_millionth() -> None:
    norm = DarknetNorm(4).eval()
    norm.running_var.copy_(torch.tensor([0.0, 1e-12, 1e-4, 4.0]))
    x = torch.full((1, 4, 1, 1), 1e-6)
    expected = 1e-6 / (np.sqrt(np.array([0.0, 1e-12, 1e-4, 4.0])) + 1e-6)
    np.testing.assert_allclose(norm(x).detach().flatten().numpy(), expected, rtol=1e-5)


def test_the_fork_s_epsilon_is_a_key_of_net() -> None:
    network = network_of(RESIDUAL.replace("channels=3\n", "channels=3\nbn_epsilon=1e-5\n"))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {type(norm) for norm in norms} == {nn.BatchNorm2d}
    assert {norm.eps for norm in norms} == {1e-5}


def test_depthwise_is_a_convolution_with_a_group_for_each_channel() -> None:
    grouped = network_of(f"{SQUARE}[convolutional]\nfilters=8\ngroups=8\nsize=3\npad=1\nactivation=relu\n")
    depthwise = network_of(f"{SQUARE}[depthwise]\nfilters=8\nsize=3\npad=1\nactivation=relu\n")
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(grouped(image), depthwise(image))


def test_new_coords_leave_the_sigmoid_to_the_head() -> None:
    conv = "[convolutional]\nfilters=7\nsize=1\nactivation={}\n"
    head = "[yolo]\nclasses=2\nnum=1\nanchors=4,5\n"
    scaled = network_of(SQUARE + conv.format("logistic") + head + "new_coords=1\nscale_x_y=2\n")
    plain = network_of(SQUARE + conv.format("linear") + head)
    image = torch.rand(1, 3, 32, 32)
    raw = plain(image)
    assert torch.equal(scaled(image), raw)
    scaled.activate()
    seen = scaled(image)
    torch.testing.assert_close(seen[:, :2], raw[:, :2].sigmoid() * 2 - 0.5)
    torch.testing.assert_close(seen[:, 2:], raw[:, 2:].sigmoid())


def test_residual_blocks_are_modules_and_layers_keep_darknets_numbers() -> None:
    network = network_of(RESIDUAL)
    assert list(network.layers) == ["0", "1-4", "5-7", "8", "9", "10", "11", "12", "13"]
    assert [index for index, _ in network.in_order()] == list(range(14))


def test_a_block_that_is_read_from_outside_stays_flat() -> None:
    network = network_of(RESIDUAL.replace("layers=-1, 0", "layers=-1\n[route]\nlayers=2"))
    assert "1-4" not in network.layers
    assert "5-7" in network.layers


@pytest.mark.parametrize("layers", ODD_WAYS)
def test_any_channels_can_go(layers: str) -> None:
    network = network_of(f"{WIDE}{layers}[convolutional]\nfilters=8\nsize=1\nactivation=linear\n")
    image = torch.rand(1, *network.size)
    graph = trace(network, image)
    plan = random_plan(graph)
    assert plan.groups
    assert masked_error(network, image, plan, graph) < 1e-5


def test_every_activation_runs() -> None:
    x = torch.linspace(-8, 8, 33)
    for name in sorted({*MODULES, *FORMULAS}):
        network = network_of(f"{SQUARE}[activation]\nactivation={name}\n")
        assert torch.isfinite(network(torch.rand(1, 3, 32, 32))).all()
    assert torch.equal(FORMULAS["hard_mish"](x), torch.where(x > 0, x, (x * x / 2 + x).where(x > -2, 0 * x)))
