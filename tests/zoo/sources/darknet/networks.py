"""Small Darknet networks: cfg texts written here, and thin copies of the cfg files that Debian's package ships."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eightfold.zoo.sources.darknet.cfg import Cfg, Section, parse_cfg
from eightfold.zoo.sources.darknet.network import DarknetNetwork, build_network
from eightfold.zoo.sources.darknet.weights import save_weights
from tests.zoo.sources.darknet.oracle import LIBRARY, darknet_outputs

PACKAGE = Path("/usr/share/darknet/cfg")
needs_darknet = pytest.mark.skipif(not LIBRARY.is_file(), reason="needs Debian's package darknet")
RECURRENT = ("gru", "rnn", "rnn.train")
# The outputs of these are compared by get_network_image_layer; of the others, by network_predict.
MAPS = ("yolo", "region")

NET = "[net]\nbatch=1\nsubdivisions=1\nwidth=32\nheight=32\nchannels=3\n"
RESIDUAL = f"""{NET}
[convolutional]
batch_normalize=1
filters=16
size=3
stride=2
pad=1
activation=leaky

# a residual block of three layers, the middle one depthwise
[convolutional]
batch_normalize=1
filters=32
size=1
stride=1
activation=relu
[convolutional]
batch_normalize=1
filters=32
groups=32
size=3
stride=1
pad=1
activation=relu
[convolutional]
batch_normalize=1
filters=16
size=1
stride=1
activation=linear
[shortcut]
from=-4
activation=linear

[convolutional]
batch_normalize=1
filters=24
size=1
stride=1
activation=leaky
[convolutional]
batch_normalize=1
filters=16
size=3
stride=1
pad=1
activation=leaky
[shortcut]
from=-3
activation=leaky

[convolutional]
filters=21
size=1
stride=1
activation=linear
[yolo]
mask=3,4,5
anchors=1,1, 2,2, 3,3, 8,9, 14,12, 20,25
classes=2
num=6

[route]
layers=-3
[maxpool]
size=2
stride=2
[upsample]
stride=2
[route]
layers=-1, 0
"""


def network_of(text: str, name: str = "net.cfg") -> DarknetNetwork:
    """The network of a cfg text with values that make every layer count."""
    return lively(build_network(parse_cfg(text, name)))


def lively(network: DarknetNetwork) -> DarknetNetwork:
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            state = module.state_dict()
            state["running_var"].uniform_(0.5, 1.5, generator=generator)
            state["running_mean"].normal_(0, 0.1, generator=generator)
            state["weight"].uniform_(0.3, 0.8, generator=generator)
            state["bias"].normal_(0, 0.1, generator=generator)
        elif isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            with torch.no_grad():
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, 1 / math.sqrt(fan_in), generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=generator)
    return network.eval()


def thin(cfg: Cfg, divide: int = 8, side: int = 64) -> Cfg:
    """The same topology with fewer filters, on smaller images where no layer fixes their size."""
    layers = [_thinned(section, cfg.layers[number + 1 :], divide) for number, section in enumerate(cfg.layers)]
    fixed = {"connected", "local", "crop", "detection"} & {section.name for section in layers}
    keep = fixed or cfg.net.integer("channels", 3) != 3
    size: dict[str, str | int] = {} if keep else {"width": side, "height": side}
    return replace(cfg, net=cfg.net.with_values(batch=1, subdivisions=1, **size), layers=tuple(layers))


def _thinned(section: Section, later: tuple[Section, ...], divide: int) -> Section:
    section = replace(section, options=tuple(each for each in section.options if each.key not in ("tree", "map")))
    following = next((each.name for each in later if each.name not in ("avgpool", "cost", "dropout")), "yolo")
    if following in ("yolo", "region", "detection", "softmax"):
        return section
    values = {key: max(1, section.integer(key, 1) // divide) for key in ("filters", "output") if section.has(key)}
    if section.integer("groups", 1) > 1 and section.name == "convolutional":
        values["groups"] = max(1, section.integer("groups", 1) // divide)
    return section.with_values(**values)


def assert_as_darknet(network: DarknetNetwork, cfg: Path, weights: Path, layers: Sequence[int] = ()) -> None:
    """The network's outputs against those of the real Darknet with these files, within 1e-4.

    `layers`: numbers of layers to compare in place of the network's own outputs.
    """
    image = torch.rand(1, *network.size, generator=torch.Generator().manual_seed(1))
    maps = all(network.cfg.layers[index].name in MAPS for index in network.heads)
    compared = layers or (network.heads if maps else network.heads[-1:])
    network.activate()
    try:
        with torch.no_grad():
            seen = network.outputs(image)
    finally:
        network.activate(False)
    ours = [seen[index].numpy().ravel() for index in compared]
    by_number = compared if maps or layers else ()
    theirs = darknet_outputs(cfg, weights, image.numpy(), by_number, 0 if by_number else ours[-1].size)
    for mine, other in zip(ours, theirs, strict=True):
        bound = 1e-4 * min(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(mine, other.ravel(), rtol=0, atol=bound)


def write_unpruned(network: DarknetNetwork, folder: Path) -> tuple[Path, Path]:
    (folder / "net.cfg").write_text(network.cfg.render())
    save_weights(network, folder / "net.weights")
    return folder / "net.cfg", folder / "net.weights"
