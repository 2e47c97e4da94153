"""Darknet networks against Darknet itself: every detection and classification cfg of Debian's package, at full width.

Usage: python benchmarks/darknet_parity.py [NAME ...]
Needs Debian's package darknet, 2 GB of memory and as much in the temporary folder. Weights are random: those of a
convolution scaled by its inputs, norms with statistics away from 0 and 1. Each network is then pruned to half of its
channels, written as cfg and weights, and compared again. Convolutional networks run at 64x64, or smaller where that is
theirs, where their values are those of any size; Darknet multiplies matrices in one thread, without blocking.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eightfold.compress.plan_pruning import plan_module
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.runtime.devices.devices import describe_device
from eightfold.zoo.sources.darknet.cfg import Cfg, read_cfg
from eightfold.zoo.sources.darknet.network import DarknetNetwork, build_network
from eightfold.zoo.sources.darknet.write import write_pair

HERE = Path(__file__).parent
RESULT = HERE / "results/darknet_parity.md"
PACKAGE = Path("/usr/share/darknet/cfg")
RECURRENT = ("gru", "rnn", "rnn.train")
MAPS = ("yolo", "region")
SIDE = 64
# The tests' way to run Darknet in a process of its own.
sys.path.insert(0, str(HERE.parent / "tests/zoo/sources/darknet"))
darknet_outputs = importlib.import_module("oracle").darknet_outputs


@dataclass(frozen=True)
class Row:
    """Parameters, and the largest difference from Darknet's outputs beside their largest value."""

    name: str
    size: str
    parameters: tuple[int, int]
    largest: tuple[float, float]
    difference: tuple[float, float]

    def markdown(self) -> str:
        cells = [self.name, self.size]
        for index in (0, 1):
            cells += [f"{self.parameters[index]:,}", f"{self.largest[index]:.3g}", f"{self.difference[index]:.1e}"]
        return f"| {' | '.join(cells)} |"


def compared(path: Path, folder: Path) -> Row:
    """Both comparisons of one cfg file."""
    network = lively(build_network(_small(read_cfg(path))))
    parameters, largest, difference = [], [], []
    for pruned in (False, True):
        if pruned:
            apply_plan_to_module(network, plan_module(network, torch.rand(1, *network.size)))
        top, apart = _against_darknet(network, *write_pair(network, folder / "net"))
        parameters.append(sum(each.numel() for each in network.parameters()))
        largest.append(top)
        difference.append(apart)
    _, height, width = network.size
    return Row(path.stem, f"{width}x{height}", _pair(parameters), _pair(largest), _pair(difference))


def lively(network: DarknetNetwork) -> DarknetNetwork:
    """Statistics of norms as a trained network has them, so that every value of the files counts."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            state = module.state_dict()
            state["running_var"].uniform_(0.5, 1.5, generator=generator)
            state["running_mean"].normal_(0, 0.1, generator=generator)
            state["weight"].uniform_(0.3, 0.8, generator=generator)
            state["bias"].normal_(0, 0.1, generator=generator)
    return network.eval()


def _pair(values: list[Any]) -> tuple[Any, Any]:
    return values[0], values[1]


def _small(cfg: Cfg) -> Cfg:
    """Batch 1, without files that the package does not ship, at SIDE where no layer fixes the size."""
    layers = tuple(
        replace(section, options=tuple(each for each in section.options if each.key not in ("tree", "map")))
        for section in cfg.layers
    )
    fixed = {"connected", "local", "crop", "detection"} & {section.name for section in layers}
    side = min(SIDE, cfg.net.integer("width", SIDE))
    size: dict[str, str | int] = {"width": side, "height": side}
    keep = fixed or cfg.net.integer("channels", 3) != 3
    return replace(cfg, net=cfg.net.with_values(batch=1, subdivisions=1, **({} if keep else size)), layers=layers)


def _against_darknet(network: DarknetNetwork, cfg: Path, weights: Path) -> tuple[float, float]:
    image = torch.rand(1, *network.size, generator=torch.Generator().manual_seed(1))
    maps = all(network.cfg.layers[index].name in MAPS for index in network.heads)
    network.activate()
    with torch.no_grad():
        seen = network.outputs(image)
    network.activate(False)
    numbers = network.heads if maps else network.heads[-1:]
    ours = [seen[index].numpy().ravel() for index in numbers]
    last = 0 if maps else ours[-1].size
    theirs = darknet_outputs(cfg, weights, image.numpy(), numbers if maps else (), last, seconds=3600)
    apart = max(float(np.abs(one - other.ravel()).max()) for one, other in zip(ours, theirs, strict=True))
    return max(float(np.abs(other).max()) for other in theirs), apart


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    paths = [path for path in sorted(PACKAGE.glob("*.cfg")) if path.stem not in RECURRENT]
    rows = []
    for path in paths:
        if names and path.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append(compared(path, Path(folder)))
        print(rows[-1].markdown(), flush=True)
    worst = max(each / max(1.0, top) for row in rows for each, top in zip(row.difference, row.largest, strict=True))
    lines = [
        "# Darknet networks against Darknet",
        "",
        f"{len(rows)} networks; largest difference relative to the larger of 1 and the largest output: {worst:.1e}.",
        "",
        "| cfg | input | parameters | largest output | difference | pruned: parameters | largest output | difference |",
        "|---|---|---|---|---|---|---|---|",
        *(row.markdown() for row in rows),
        "",
        "```",
        describe_device().describe(),
        "```",
    ]
    if not names:
        RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
