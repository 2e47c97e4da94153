"""Expresses the runtime's detection decoders as nodes on a network's raw outputs: boxes in tensor pixels and class
values.

Each function mirrors a decoder of docs/decoders.md and takes the runtime's own decoder for its options and anchors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eightfold.arrays import Array
from eightfold.errors import UsageError
from eightfold.onnx_graph.graph_builder import GraphBuilder
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.postprocess.anchor_heads import LARGEST_LOG, AnchorHead, Fcos, RetinaNet, Ssd
from eightfold.runtime.postprocess.detect import Detector
from eightfold.runtime.postprocess.yolo import YoloAnchors, YoloBoxes, YoloDfl

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class BoxHead:
    """A decoded head, location by location.

    Attributes:
        boxes: name of (batch, locations, 4) corners in tensor pixels.
        values: name of (batch, locations, classes): the largest one of a location is its class.
        score: makes scores of values; also of the best one only, (batch, locations, 1).
        locations, classes: how many there are.
        levels: locations of each level, where the decoder limits these.
    """

    boxes: str
    values: str
    score: Callable[[str], str]
    locations: int
    classes: int
    levels: tuple[int, ...] = ()


def head_of(build: GraphBuilder, decoder: Detector, outputs: Sequence[TensorSpec], size: Size) -> BoxHead:
    """Nodes for the boxes and scores of `outputs`.

    Args:
        decoder: of the runtime, with its options.
        size: (height, width) of the network's input in pixels.

    Raises:
        UsageError: no form of this decoder is known in a graph, or the outputs are not what it takes.
    """
    make = _MAKERS.get(type(decoder))
    if make is None:
        known = "yolo-boxes, yolo-dfl, yolo-anchors, ssd, retinanet, fcos"
        raise UsageError("that decoder has no form in a graph", allowed=known, remedy="leave decoding to the runtime")
    return make(build, decoder, {spec.name: spec for spec in outputs}, size)


def _yolo_boxes(build: GraphBuilder, decoder: YoloBoxes, outputs: Mapping[str, TensorSpec], size: Size) -> BoxHead:
    spec = _the_output(outputs, 3)
    rows, locations = spec.shape[1:] if not decoder.channels_last else spec.shape[:0:-1]
    first = 5 if decoder.objectness else 4
    if rows <= first:
        raise _unfit(spec, f"(batch, {first} + classes, locations), or turned round with channels_last")
    table = spec.name if decoder.channels_last else build.add("Transpose", spec.name, perm=[0, 2, 1])
    parts = build.split(table, [4, *[1] * (first - 4), rows - first], 2)
    centre, extent = build.split(parts[0], [2, 2], 2)
    half = build.add("Mul", extent, build.floats(0.5))
    boxes = build.concat([build.add("Sub", centre, half), build.add("Add", centre, half)], 2)
    if decoder.normalized:
        boxes = build.add("Mul", boxes, build.floats(np.array(size[::-1] * 2)))
    weigh = (lambda values: build.add("Mul", values, parts[1])) if decoder.objectness else (lambda values: values)
    return BoxHead(boxes, parts[-1], weigh, locations, rows - first)


def _yolo_dfl(build: GraphBuilder, decoder: YoloDfl, outputs: Mapping[str, TensorSpec], size: Size) -> BoxHead:
    maps = list(outputs.values())
    channels, sides = maps[0].shape[1], 4 * decoder.reg_max
    if any(len(spec.shape) != 4 or spec.shape[1] != channels or channels <= sides for spec in maps):
        raise _unfit(maps[0], f"maps (batch, {sides} + classes, height, width), all with as many channels")
    flat = [build.reshape(spec.name, spec.shape[0], channels, -1) for spec in maps]
    table = build.add("Transpose", build.concat(flat, 2), perm=[0, 2, 1])
    bins, logits = build.split(table, [sides, channels - sides], 2)
    grid = _Cells(maps, size)
    near, far = build.split(_distances(build, bins, maps[0].shape[0], grid.count, decoder.reg_max), [2, 2], 2)
    centres = build.floats(grid.cells + 0.5)
    corners = build.concat([build.add("Sub", centres, near), build.add("Add", centres, far)], 2)
    boxes = build.add("Mul", corners, build.floats(np.tile(grid.strides, 2)))
    return BoxHead(boxes, logits, lambda values: build.add("Sigmoid", values), grid.count, channels - sides)


def _distances(build: GraphBuilder, bins: str, batch: int, count: int, reg_max: int) -> str:
    """(batch, count, 4): the mean of each side's distribution."""
    if reg_max == 1:
        return bins
    shares = build.add("Softmax", build.reshape(bins, batch, count, 4, reg_max), axis=3)
    means = build.add("MatMul", shares, build.floats(np.arange(reg_max)[:, None]))
    return build.reshape(means, batch, count, 4)


def _yolo_anchors(build: GraphBuilder, decoder: YoloAnchors, outputs: Mapping[str, TensorSpec], size: Size) -> BoxHead:
    if decoder.class_scores != "sigmoid":
        raise UsageError(
            "a softmax over classes in the graph's decoder",
            allowed="class_scores: sigmoid",
            remedy="leave it to the runtime",
        )
    maps, per_map = list(outputs.values()), [len(anchors) for anchors in decoder.anchors]
    wide = maps[0].shape[1] // per_map[0]
    fits = len(maps) == len(per_map) and wide > 5
    if not fits or any(len(s.shape) != 4 or s.shape[1] != n * wide for s, n in zip(maps, per_map, strict=True)):
        raise _unfit(maps[0], f"{len(per_map)} maps (batch, anchors * (5 + classes), height, width)")
    rows = []
    for spec, count in zip(maps, per_map, strict=True):
        batch, _, height, width = spec.shape
        apart = build.reshape(spec.name, batch, count, wide, height * width)
        rows.append(build.reshape(build.add("Transpose", apart, perm=[0, 1, 3, 2]), batch, -1, wide))
    grid = _Cells(maps, size, per_map)
    middle, extent, objectness, logits = build.split(build.concat(rows, 1), [2, 2, 1, wide - 5], 2)
    cells = [spec.shape[2] * spec.shape[3] for spec in maps]
    anchors = [np.repeat(np.array(each), n, axis=0) for each, n in zip(decoder.anchors, cells, strict=True)]
    scales = np.broadcast_to(decoder.scale_xy, len(maps))
    factors = np.repeat(scales, np.multiply(cells, per_map))[:, None].astype(np.float32)
    wide_centre = build.add("Mul", build.add("Sigmoid", middle), build.floats(factors))
    shifted = build.add("Add", wide_centre, build.floats(grid.cells - (factors - 1) / 2))
    centre = build.add("Mul", shifted, build.floats(grid.strides))
    half = build.add("Mul", _extent(build, extent, decoder.box), build.floats(np.concatenate(anchors) / 2))
    boxes = build.concat([build.add("Sub", centre, half), build.add("Add", centre, half)], 2)
    likely = build.add("Sigmoid", objectness)

    def score(values: str) -> str:
        return build.add("Mul", build.add("Sigmoid", values), likely)

    return BoxHead(boxes, logits, score, grid.count, wide - 5)


def _extent(build: GraphBuilder, values: str, form: str) -> str:
    if form == "exp":
        return build.add("Exp", values)
    twice = build.add("Mul", build.add("Sigmoid", values), build.floats(2.0))
    return build.add("Mul", twice, twice)


class _Cells:
    """Cell and stride in pixels of each location of the feature maps: (locations, 2) arrays, x before y."""

    def __init__(self, maps: Sequence[TensorSpec], size: Size, repeats: Sequence[int] | None = None) -> None:
        cells, strides = [], []
        for spec, count in zip(maps, repeats or [1] * len(maps), strict=True):
            height, width = spec.shape[2:]
            y, x = np.divmod(np.tile(np.arange(height * width), count), width)
            cells.append(np.stack((x, y), axis=1))
            strides.append(np.broadcast_to((size[1] / width, size[0] / height), (len(x), 2)))
        self.cells = np.concatenate(cells).astype(np.float32)
        self.strides = np.concatenate(strides).astype(np.float32)
        self.count = len(self.cells)


def _ssd(build: GraphBuilder, decoder: Ssd, outputs: Mapping[str, TensorSpec], size: Size) -> BoxHead:
    logits, deltas, anchors = _anchored(decoder, outputs, size)
    likely = build.add("Softmax", logits.name, axis=2)
    _, scores = build.split(likely, [1, logits.shape[2] - 1], 2)
    boxes = _from_deltas(build, deltas.name, anchors, decoder.weights, size)
    return BoxHead(boxes, scores, lambda values: values, len(anchors), logits.shape[2] - 1)


def _retinanet(build: GraphBuilder, decoder: RetinaNet, outputs: Mapping[str, TensorSpec], size: Size) -> BoxHead:
    logits, deltas, anchors = _anchored(decoder, outputs, size)
    boxes = _from_deltas(build, deltas.name, anchors, decoder.weights, size)
    levels = _levels(decoder, len(anchors))
    return BoxHead(
        boxes, logits.name, lambda values: build.add("Sigmoid", values), len(anchors), logits.shape[2], levels
    )


def _fcos(build: GraphBuilder, decoder: Fcos, outputs: Mapping[str, TensorSpec], size: Size) -> BoxHead:
    logits, distances, anchors = _anchored(decoder, outputs, size)
    near = build.add("Sigmoid", _named(outputs, decoder.centerness_output).name)
    extents, centres = anchors[:, 2:] - anchors[:, :2], np.float32(0.5) * (anchors[:, :2] + anchors[:, 2:])
    first, last = build.split(build.add("Mul", distances.name, build.floats(np.tile(extents, 2))), [2, 2], 2)
    middle = build.floats(centres)
    boxes = _clipped(build, [build.add("Sub", middle, first), build.add("Add", middle, last)], size)

    def score(values: str) -> str:
        return build.add("Sqrt", build.add("Mul", build.add("Sigmoid", values), near))

    return BoxHead(boxes, logits.name, score, len(anchors), logits.shape[2], _levels(decoder, len(anchors)))


def _from_deltas(build: GraphBuilder, deltas: str, anchors: Array, weights: Sequence[float], size: Size) -> str:
    """Faster R-CNN's parametrization (Ren et al., NIPS 2015, eq. 2)."""
    extents = anchors[:, 2:] - anchors[:, :2]
    centres = anchors[:, :2] + np.float32(0.5) * extents
    moved, grown = build.split(build.add("Div", deltas, build.floats(np.array(weights))), [2, 2], 2)
    wide = build.floats(extents)
    centre = build.add("Add", build.add("Mul", moved, wide), build.floats(centres))
    growth = build.add("Exp", build.add("Min", grown, build.floats(float(LARGEST_LOG))))
    half = build.add("Mul", growth, build.floats(extents / 2))
    return _clipped(build, [build.add("Sub", centre, half), build.add("Add", centre, half)], size)


def _clipped(build: GraphBuilder, corners: Sequence[str], size: Size) -> str:
    limits = build.floats(np.array(size[::-1] * 2))
    return build.add("Min", build.add("Max", build.concat(corners, 2), build.floats(0.0)), limits)


def _anchored(
    decoder: AnchorHead, outputs: Mapping[str, TensorSpec], size: Size
) -> tuple[TensorSpec, TensorSpec, Array]:
    scores, deltas = _named(outputs, decoder.scores_output), _named(outputs, decoder.boxes_output)
    anchors = decoder.anchors(size)
    wanted = (scores.shape[0], len(anchors))
    if len(scores.shape) != 3 or scores.shape[:2] != wanted or deltas.shape != (*wanted, 4):
        raise _unfit(scores, f"(batch, {len(anchors)}, classes), and boxes (batch, {len(anchors)}, 4)")
    return scores, deltas, anchors


def _levels(decoder: AnchorHead, locations: int) -> tuple[int, ...]:
    cells = [height * width for height, width in decoder.grids]
    return tuple(count * (locations // sum(cells)) for count in cells)


def _the_output(outputs: Mapping[str, TensorSpec], rank: int) -> TensorSpec:
    (first, *rest) = outputs.values()
    if rest or len(first.shape) != rank:
        raise _unfit(first, f"one output with {rank} axes")
    return first


def _named(outputs: Mapping[str, TensorSpec], name: str) -> TensorSpec:
    if name not in outputs:
        raise UsageError(f"the graph puts out {', '.join(outputs)}", allowed=f"an output {name!r}")
    return outputs[name]


def _unfit(spec: TensorSpec, wanted: str) -> UsageError:
    return UsageError(f"the graph puts out {spec.name} {spec.shape}", allowed=wanted)


_MAKERS: dict[type[Detector], Callable[..., BoxHead]] = {
    Fcos: _fcos,
    RetinaNet: _retinanet,
    Ssd: _ssd,
    YoloAnchors: _yolo_anchors,
    YoloBoxes: _yolo_boxes,
    YoloDfl: _yolo_dfl,
}
