"""Output layers: yolo, region, detection, softmax, cost. Each gives its input, or with `activated` what Darknet gives.

Networks here end in raw values, because losses and the runtime's decoders take those; `activated` is for comparing with
Darknet's own `network_predict`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eightfold.zoo.sources.darknet.built import Before, Built, DarknetLayer, in_sequence
from eightfold.zoo.sources.darknet.cfg import Section
from eightfold.zoo.sources.darknet.joins import flat


class Head(DarknetLayer):
    """An output of the network."""

    activated = False

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(x) if self.activated else self.raw(x)

    def raw(self, x: Tensor) -> Tensor:
        return x

    def activate(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Anchors:
    """The boxes of one layer: `sizes` are (width, height), in input pixels for yolo, in cells for region."""

    sizes: tuple[tuple[float, float], ...]
    classes: int
    scale_xy: float = 1.0
    new_coords: bool = False  # the layer before it applies the sigmoid (scaled-YOLOv4)


def _by_anchor(x: Tensor, anchors: int) -> Tensor:
    """[batch, anchors * values, h, w] -> [batch, anchors, values, h, w]."""
    return x.reshape(x.shape[0], anchors, -1, *x.shape[2:])


class Yolo(Head):
    def __init__(self, anchors: Anchors) -> None:
        super().__init__()
        self.anchors = anchors

    def activate(self, x: Tensor) -> Tensor:
        parts = _by_anchor(x, len(self.anchors.sizes))
        factor = self.anchors.scale_xy
        centre = parts[:, :, :2].sigmoid() * factor - (factor - 1) / 2
        extent = parts[:, :, 2:4].sigmoid() if self.anchors.new_coords else parts[:, :, 2:4]
        return torch.cat((centre, extent, parts[:, :, 4:].sigmoid()), 2).flatten(1, 2)


class Region(Head):
    """YOLOv2's: the classes share a softmax, or the groups of a tree do, which is not read."""

    def __init__(self, anchors: Anchors, coords: int, softmax: bool, tree: bool = False) -> None:
        super().__init__()
        self.anchors, self.coords, self.softmax, self.tree = anchors, coords, softmax, tree

    def activate(self, x: Tensor) -> Tensor:
        parts = _by_anchor(x, len(self.anchors.sizes))
        box, size = parts[:, :, :2].sigmoid(), parts[:, :, 2 : self.coords]
        score, classes = parts[:, :, self.coords : self.coords + 1].sigmoid(), parts[:, :, self.coords + 1 :]
        classes = classes.softmax(2) if self.softmax else classes.sigmoid()
        return torch.cat((box, size, score, classes), 2).flatten(1, 2)


@dataclass(frozen=True)
class Grid:
    """The values of a YOLOv1 layer: `side` by `side` cells of `boxes` each; `square`: sides are stored as roots."""

    side: int
    boxes: int
    classes: int
    square: bool


class Detection(Head):
    """YOLOv1's: class scores, then objectness, then boxes, for a grid."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid


class Softmax(Head):
    """Flat logits; `groups` equal stretches have a softmax each."""

    def __init__(self, groups: int, temperature: float) -> None:
        super().__init__()
        self.groups, self.temperature = groups, temperature

    def raw(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def activate(self, x: Tensor) -> Tensor:
        parts = (x.flatten(1) / self.temperature).reshape(len(x), self.groups, -1)
        return parts.softmax(2).flatten(1)


def yolo(section: Section, before: Before) -> Built:
    """`mask` picks this layer's anchors; without it, it has them all."""
    anchors, classes = _pairs(section), section.integer("classes", 20, least=1)
    number = section.integer("num", 1, least=1)
    if section.has("anchors") and len(anchors) != number:
        raise section.error(f"{len(anchors)} anchors and num={number}", key="anchors", allowed=f"{number} pairs")
    mask = section.integers("mask", range(number))
    if not mask or any(not 0 <= index < number for index in mask):
        shown = ",".join(map(str, mask))
        raise section.error(f"mask={shown} and {number} anchors", key="mask", allowed=f"numbers from 0 to {number - 1}")
    _require_channels(section, before, len(mask) * (5 + classes), f"{len(mask)} anchors x (5 + {classes} classes)")
    sizes = tuple(anchors[index] for index in mask) if anchors else ((0.5, 0.5),) * len(mask)
    head = Anchors(sizes, classes, section.number("scale_x_y", 1), bool(section.integer("new_coords", 0)))
    return in_sequence(section, before, Yolo(head), before.previous, head=True)


def region(section: Section, before: Before) -> Built:
    if section.integer("background", 0):
        raise section.error("[region] with background", key="background", allowed="background=0")
    classes, number = section.integer("classes", 20, least=1), section.integer("num", 1, least=1)
    coords, anchors = section.integer("coords", 4, least=4), _pairs(section)
    if anchors and len(anchors) != number:
        raise section.error(f"{len(anchors)} anchors and num={number}", key="anchors", allowed=f"{number} pairs")
    words = f"{number} anchors x ({coords + 1} + {classes} classes)"
    _require_channels(section, before, number * (coords + 1 + classes), words)
    softmax = bool(section.integer("softmax", 0))
    head = Region(Anchors(anchors or ((0.5, 0.5),) * number, classes), coords, softmax, section.has("tree"))
    return in_sequence(section, before, head, before.previous, head=True)


def detection(section: Section, before: Before) -> Built:
    side, number = section.integer("side", 7, least=1), section.integer("num", 1, least=1)
    classes, coords = section.integer("classes", 1, least=1), section.integer("coords", 1, least=1)
    if section.integer("softmax", 0):
        raise section.error("[detection] with softmax", key="softmax", allowed="softmax=0")
    wanted = side * side * ((1 + coords) * number + classes)
    if flat(before.previous) != wanted:
        raise section.error(
            f"{flat(before.previous)} values before [detection]",
            allowed=f"{wanted} = {side}x{side} cells x ({number} boxes x {1 + coords} + {classes} classes)",
        )
    grid = Grid(side, number, classes, bool(section.integer("sqrt", 0)))
    return in_sequence(section, before, Detection(grid), before.previous, head=True)


def softmax(section: Section, before: Before) -> Built:
    groups, values = section.integer("groups", 1, least=1), flat(before.previous)
    if values % groups:
        raise section.error(f"{values} values in {groups} groups", key="groups", allowed="groups that divide them")
    module = Softmax(groups, section.number("temperature", 1))
    return in_sequence(section, before, module, (values, 1, 1), head=True)


def cost(section: Section, before: Before) -> Built:
    """Training only: it passes its input, and is no output of its own."""
    return in_sequence(section, before, Head(), before.previous)


def _pairs(section: Section) -> tuple[tuple[float, float], ...]:
    values = section.numbers("anchors")
    if len(values) % 2:
        raise section.error(f"{len(values)} numbers as anchors", key="anchors", allowed="pairs of width and height")
    return tuple(zip(values[::2], values[1::2], strict=True))


def _require_channels(section: Section, before: Before, wanted: int, words: str) -> None:
    if before.previous[0] != wanted:
        raise section.error(
            f"{before.previous[0]} channels before [{section.name}]",
            allowed=f"{wanted} = {words}",
            remedy="set filters of the layer before it, classes or mask",
        )
