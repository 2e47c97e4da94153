"""The model source `darknet:FILE.cfg[+FILE.weights]`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from eightfold.errors import UsageError
from eightfold.files import PathLike
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.zoo.sources.darknet.cfg import Cfg, read_cfg
from eightfold.zoo.sources.darknet.heads import Detection, Head, Region, Softmax, Yolo
from eightfold.zoo.sources.darknet.network import DarknetNetwork, build_network
from eightfold.zoo.sources.darknet.weights import load_darknet_weights

FORM = "FILE.cfg, or FILE.cfg+FILE.weights"


@dataclass(frozen=True)
class Opened:
    """A network, and one line on the origin of its values. `whole`: all come from a file."""

    network: DarknetNetwork
    origin: str
    whole: bool


def split_source(rest: str) -> tuple[Path, Path | None]:
    """(cfg, weights) of what follows `darknet:`.

    >>> split_source("nets/yolo.cfg+yolo.weights")
    (PosixPath('nets/yolo.cfg'), PosixPath('yolo.weights'))
    """
    cfg, plus, weights = rest.partition(".cfg+")
    cfg = f"{cfg}.cfg" if plus else rest
    if not cfg.endswith(".cfg") or (plus and not weights):
        raise UsageError(f"darknet:{rest}", allowed=f"darknet: and then {FORM}")
    return Path(cfg), Path(weights) if plus else None


def open_darknet(rest: str, *, seed: int = 0, size: Size | None = None) -> Opened:
    """Build the network of `FILE.cfg[+FILE.weights]`; without weights its values are random, by `seed`.

    Args:
        size: (height, width) in place of those in [net].

    Raises:
        UsageError: the source is written otherwise.
        ModelError: a file cannot be read or does not fit the other; a layer cannot be built. With the line.
    """
    cfg, weights = split_source(rest)
    read = read_cfg(cfg)
    if size is not None:
        read = replace(read, net=read.net.with_values(height=size[0], width=size[1]))
    torch.manual_seed(seed)
    network = build_network(read)
    if weights is None:
        return Opened(network, f"{cfg}: no weights given, the network has random ones", False)
    loaded = load_darknet_weights(network, weights)
    return Opened(network, f"{cfg}: {loaded.origin}", loaded.layers == loaded.of)


def darknet_task(cfg: Cfg | PathLike) -> Task:
    """The task of the network's outputs: boxes of [yolo], [region], [detection]; classes of [softmax]; else tensors."""
    network = build_on_meta(read_cfg(cfg) if not isinstance(cfg, Cfg) else cfg)
    heads = [module for _, module in network.in_order() if isinstance(module, Head) and type(module) is not Head]
    yolos = [module for module in heads if isinstance(module, Yolo)]
    if heads and len(yolos) == len(heads):
        return Task(kind="detect", decode="yolo-anchors", options=_anchor_options(yolos))
    if len(heads) == 1 and isinstance(heads[0], Region) and heads[0].coords == 4 and not heads[0].tree:
        return Task(kind="detect", decode="yolo-anchors", options=_region_options(heads[0], network))
    if len(heads) == 1 and isinstance(heads[0], Detection):
        return Task(kind="detect", decode="yolo-grid", options=asdict(heads[0].grid))
    if len(heads) == 1 and isinstance(heads[0], Softmax) and heads[0].groups == 1:
        return Task(kind="classify", decode="classify")
    return Task(kind="tensors", decode="tensors")


def class_count(network: DarknetNetwork) -> int | None:
    """The classes of the network's heads; None where no head names them."""
    for _, head in network.in_order():
        if isinstance(head, (Yolo, Region)):
            return head.anchors.classes
        if isinstance(head, Detection):
            return head.grid.classes
        if isinstance(head, Softmax):
            return math.prod(network.shapes[network.heads[0]])
    return None


def _region_options(head: Region, network: DarknetNetwork) -> dict[str, object]:
    """Anchors of [region] are in cells."""
    _, rows, columns = network.shapes[network.heads[0]]
    _, height, width = network.size
    anchors = [[w * width / columns, h * height / rows] for w, h in head.anchors.sizes]
    return {"anchors": [anchors], "class_scores": "softmax" if head.softmax else "sigmoid"}


def build_on_meta(cfg: Cfg) -> DarknetNetwork:
    """The network without values: shapes and numbers only."""
    with torch.device("meta"):
        return build_network(cfg)


def _anchor_options(heads: list[Yolo]) -> dict[str, object]:
    options: dict[str, object] = {
        "anchors": [[list(size) for size in head.anchors.sizes] for head in heads],
        "scale_xy": [head.anchors.scale_xy for head in heads],
    }
    kinds = {head.anchors.new_coords for head in heads}
    if len(kinds) > 1:
        raise UsageError("new_coords in some [yolo] sections only", allowed="new_coords in all of them or in none")
    return {**options, "box": "sigmoid" if kinds == {True} else "exp"}
