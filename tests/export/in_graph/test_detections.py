"""Detections out of the graph are those of the runtime's decoder on the raw outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from eightfold.calib.images.geometry import Placement
from eightfold.errors import BuildError, UsageError
from eightfold.export.in_graph.detections import form_for, with_detections
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.tensorrt.layers import layers_of_network
from eightfold.export.tensorrt.messages import collecting_logger
from eightfold.export.verify.verify import run_onnx
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.nms import nms
from eightfold.runtime.postprocess.results import Detections
from tests.export.networks import graph, saved

SIZE = (96, 128)
IDENTITY = Placement(SIZE, SIZE, (0, 0), SIZE)
GRIDS = ((12, 16), (6, 8))
CELLS = 12 * 16 + 6 * 8
Shapes = Mapping[str, tuple[int, ...]]
Arrays = dict[str, NDArray[np.float32]]


def maps(channels: int) -> Shapes:
    return {f"p{level}": (channels, *grid) for level, grid in enumerate(GRIDS)}


def boxes_and_scores(per_cell: int, classes: int) -> Shapes:
    return {"cls_logits": (per_cell * CELLS, classes), "bbox_regression": (per_cell * CELLS, 4)}


ANCHORS = {"anchors": [[[10, 13], [16, 30]], [[33, 23], [40, 50]]]}
RETINA = {"grids": GRIDS, "sizes": [[8, 12], [16, 20]], "aspect_ratios": [[0.5, 1, 2]] * 2}
CASES: list[tuple[str, Shapes, dict[str, Any]]] = [
    ("yolo-boxes", {"out": (7, 300)}, {}),
    ("yolo-boxes", {"out": (7, 300)}, {"max_detections": 7, "max_candidates": 90, "score_threshold": 0.5}),
    ("yolo-boxes", {"out": (7, 300)}, {"multi_label": True}),
    ("yolo-boxes", {"out": (300, 8)}, {"channels_last": True, "objectness": True, "multi_label": True}),
    ("yolo-boxes", {"out": (300, 8)}, {"channels_last": True, "objectness": True, "agnostic": True}),
    ("yolo-boxes", {"out": (7, 300)}, {"normalized": True, "multi_label": True, "agnostic": True}),
    ("yolo-boxes", {"out": (5, 300)}, {}),
    ("yolo-boxes", {"out": (7, 300)}, {"nms": False, "max_detections": 50}),
    ("yolo-dfl", maps(64 + 3), {}),
    ("yolo-dfl", maps(64 + 3), {"multi_label": True, "iou_threshold": 0.7}),
    ("yolo-dfl", maps(4 + 3), {"reg_max": 1, "nms": False, "multi_label": True}),
    ("yolo-anchors", maps(2 * 8), {**ANCHORS, "scale_xy": [1.2, 1.05]}),
    ("yolo-anchors", maps(2 * 8), {**ANCHORS, "box": "sigmoid", "scale_xy": 2, "multi_label": True}),
    ("ssd", boxes_and_scores(4, 5), {"grids": GRIDS, "aspect_ratios": [[2], [2]], "scales": [0.1, 0.3, 0.6]}),
    (
        "ssd",
        boxes_and_scores(4, 5),
        {
            "grids": GRIDS,
            "aspect_ratios": [[2], [2]],
            "scales": [0.1, 0.3, 0.6],
            "steps": [8, 16],
            "clip": False,
            "class_candidates": 20,
            "score_threshold": 0.3,
        },
    ),
    ("retinanet", boxes_and_scores(6, 4), RETINA),
    ("retinanet", boxes_and_scores(6, 4), {**RETINA, "level_candidates": 60, "agnostic": True}),
    ("fcos", {**boxes_and_scores(1, 4), "bbox_ctrness": (CELLS, 1)}, {"grids": GRIDS, "sizes": [[8], [16]]}),
]


def identity(shapes: Shapes, batch: int) -> onnx.ModelProto:
    """A network whose outputs are its inputs."""
    whole: dict[str, Sequence[int | str]] = {name: [batch, *shape] for name, shape in shapes.items()}
    nodes = [helper.make_node("Identity", [f"in_{name}"], [name]) for name in shapes]
    return graph(nodes, {f"in_{name}": shape for name, shape in whole.items()}, whole, opset=13)


def raw(decode: str, shapes: Shapes, options: dict[str, Any], batch: int) -> Arrays:
    rng = np.random.default_rng(len(str(options)))
    arrays = {name: rng.normal(0, 1.5, (batch, *shape)).astype(np.float32) for name, shape in shapes.items()}
    if decode != "yolo-boxes":
        return arrays
    table = arrays["out"] if options.get("channels_last") else arrays["out"].transpose(0, 2, 1)
    table[..., :4] = rng.uniform((20, 20, 4, 4), (108, 76, 40, 40), table[..., :4].shape)
    table[..., :4] /= np.tile(SIZE[::-1], 2) if options.get("normalized") else 1
    table[..., 4:] = rng.random(table[..., 4:].shape)
    return arrays


def assert_same(inside: Any, outside: Any) -> None:
    assert isinstance(inside, Detections)
    assert isinstance(outside, Detections)
    np.testing.assert_array_equal(inside.classes, outside.classes)
    np.testing.assert_allclose(inside.scores, outside.scores, atol=1e-6)
    np.testing.assert_allclose(inside.boxes, outside.boxes, atol=1e-3)


@pytest.mark.parametrize(("decode", "shapes", "options"), CASES)
def test_the_graph_finds_what_the_decoder_finds(decode: str, shapes: Shapes, options: dict[str, Any]) -> None:
    task = Task(kind="detect", decode=decode, labels=("a", "b"), options=options)
    model, decoded = with_detections(identity(shapes, 2), task, SIZE)
    onnx.checker.check_model(model, full_check=True)
    heads = raw(decode, shapes, options, 2)
    outputs = run_onnx(model, {f"in_{name}": array for name, array in heads.items()})
    assert list(outputs) == ["detections"]
    assert outputs["detections"].shape[2] == 6
    outside = decoder_of(task)(heads, [IDENTITY] * 2)
    inside = decoder_of(decoded)(outputs, [IDENTITY] * 2)
    assert sum(map(len, outside)) > 10  # type: ignore[arg-type]  # detections have a length
    for ours, theirs in zip(inside, outside, strict=True):
        assert_same(ours, theirs)


def test_equal_scores_come_in_the_decoders_order() -> None:
    """A constant image gives every cell the same score."""
    task = Task(kind="detect", decode="yolo-dfl", options={"multi_label": True, "max_detections": 30})
    heads = {name: np.ones((1, *shape), np.float32) for name, shape in maps(64 + 3).items()}
    model, decoded = with_detections(identity(maps(64 + 3), 1), task, SIZE)
    outputs = run_onnx(model, {f"in_{name}": array for name, array in heads.items()})
    (inside,), (outside,) = decoder_of(decoded)(outputs, [IDENTITY]), decoder_of(task)(heads, [IDENTITY])
    assert len(outside) == 30  # type: ignore[arg-type]  # as above
    assert_same(inside, outside)


def test_boxes_turned_inside_out_overlap_with_none() -> None:
    """As networks put out that add raw distances to a centre; the operator alone would turn them round."""
    task = Task(kind="detect", decode="yolo-boxes", options={"iou_threshold": 0.2, "max_detections": 200})
    shapes: Shapes = {"out": (4 + 2, 120)}
    heads = raw("yolo-boxes", shapes, {}, 1)
    heads["out"][:, 2:4] *= np.random.default_rng(0).choice([-1, 1], (1, 2, 120)).astype(np.float32)
    model, decoded = with_detections(identity(shapes, 1), task, SIZE)
    outputs = run_onnx(model, {"in_out": heads["out"]})
    (inside,), (outside,) = decoder_of(decoded)(outputs, [IDENTITY]), decoder_of(task)(heads, [IDENTITY])
    assert 50 < len(outside) < 120  # type: ignore[arg-type]  # as above
    assert_same(inside, outside)


def _plugin(boxes: NDArray[Any], scores: NDArray[Any], options: dict[str, Any]) -> list[NDArray[Any]]:
    """What TensorRT's plugin computes for one image (its README.md); rows behind the last one hold anything."""
    count = options["max_output_boxes"]
    places, classes = np.nonzero(scores > options["score_threshold"])
    order = np.argsort(-scores[places, classes], kind="stable")
    places, classes = places[order], classes[order]
    kept = nms(boxes[places], classes, options["iou_threshold"], count)
    rows = [np.full((count, 4), 7, np.float32), np.full(count, 7, np.float32), np.full(count, 7, np.int32)]
    for row, values in zip(rows, (boxes[places], scores[places, classes], classes), strict=True):
        row[: len(kept)] = values[kept]
    return [np.array([len(kept)], np.int32), *rows]


def test_the_plugins_form_finds_the_same() -> None:
    decode, shapes, options = CASES[2]
    task = Task(kind="detect", decode=decode, options={**options, "max_detections": 50})
    model, decoded = with_detections(identity(shapes, 1), task, SIZE, form="efficient")
    (place,) = [place for place, node in enumerate(model.graph.node) if node.op_type == "EfficientNMS_TRT"]
    plugin = model.graph.node.pop(place)
    settings = {each.name: helper.get_attribute_value(each) for each in plugin.attribute}
    heads = raw(decode, shapes, options, 1)
    before = onnx.ModelProto()
    before.CopyFrom(model)
    del before.graph.node[place:], before.graph.output[:]
    before.graph.output.extend(onnx.ValueInfoProto(name=name) for name in plugin.input)
    boxes, scores = run_onnx(before, {"in_out": heads["out"]}).values()
    results = _plugin(boxes[0], scores[0], settings)
    for name, array in zip(plugin.output, results, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(array[None], name))
    outputs = run_onnx(model, {"in_out": heads["out"]})
    (inside,), (outside,) = decoder_of(decoded)(outputs, [IDENTITY]), decoder_of(task)(heads, [IDENTITY])
    assert_same(inside, outside)


@pytest.mark.parametrize(
    ("targets", "form"),
    [((), "onnx"), (("cpu-x86", "tensorrt:8.5"), "onnx"), (("tensorrt:8.2", "tensorrt-dla:8.4"), "efficient")],
)
def test_the_form_follows_from_the_targets(targets: tuple[str, ...], form: str) -> None:
    assert form_for(targets) == form


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (("tensorrt:8.2", "cpu-x86"), "for tensorrt:8.2, cpu-x86; allowed: TensorRT before 8.5, .* make a bundle for"),
        (("rtx:sm86",), "for rtx:sm86; allowed: targets other than TensorRT-RTX"),
    ],
)
def test_targets_without_a_common_form(targets: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        form_for(targets)


@pytest.mark.parametrize(
    ("decode", "shape", "options", "words"),
    [
        ("yolo-boxes", (5,), {}, r"puts out out \(1, 5\); allowed: one output with 3 axes"),
        ("yolo-boxes", (4, 9), {}, r"puts out out \(1, 4, 9\); allowed: \(batch, 4 \+ classes, locations\)"),
        ("yolo-boxes", (7, 9), {"soft_sigma": 0.5}, "soft suppression in the graph; allowed: soft_sigma 0"),
        ("end-to-end", (9, 6), {}, "decoder is 'end-to-end'; allowed: a detector without decoding and suppression"),
        ("classify", (9,), {}, "decoder is 'classify'"),
        ("ssd", (9, 4), {"grids": [[1, 1]], "aspect_ratios": [[2]], "scales": [0.1, 0.2]}, "an output 'cls_logits'"),
        ("yolo-dfl", (64, 3, 3), {}, r"allowed: maps \(batch, 64 \+ classes, height, width\)"),
    ],
)
def test_what_cannot_be_decoded_is_refused(decode: str, shape: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        with_detections(identity({"out": shape}, 1), Task(kind="detect", decode=decode, options=options), SIZE)


def test_names_that_the_network_has_already_are_left_to_it() -> None:
    shape = [1, 7, 300]
    nodes = [
        helper.make_node("Identity", ["detections"], ["decode/0_Transpose_0"], name="decode/0_Transpose"),
        helper.make_node("Identity", ["decode/0_Transpose_0"], ["decode_constant"]),
    ]
    model = graph(nodes, {"detections": shape}, {"decode_constant": shape})
    task = Task(kind="detect", decode="yolo-boxes")
    made, decoded = with_detections(model, task, SIZE)
    heads = raw("yolo-boxes", {"out": (7, 300)}, {}, 1)
    outputs = run_onnx(made, {"detections": heads["out"]})
    assert list(outputs) == ["detections_1"]
    assert_same(decoder_of(decoded)(outputs, [IDENTITY])[0], decoder_of(task)(heads, [IDENTITY])[0])


def test_rtx_which_has_no_suppression_is_not_asked_for_it(tmp_path: Path) -> None:
    model, _ = with_detections(identity({"out": (7, 300)}, 1), Task(kind="detect", decode="yolo-boxes"), SIZE)
    words = r"is NonMaxSuppression, which TensorRT-RTX does not have; .*; export without --decode"
    with pytest.raises(BuildError, match=words):
        build_engine(saved(model, tmp_path / "x.onnx"), tmp_path / "x.engine", target="rtx:sm86", precision="fp16")


@pytest.mark.parametrize(("decode", "shapes", "options"), CASES)
def test_tensorrts_parser_takes_the_graph(decode: str, shapes: Shapes, options: dict[str, Any]) -> None:
    trt: Any = pytest.importorskip("tensorrt_rtx")  # its parser is TensorRT's
    model, _ = with_detections(identity(shapes, 1), Task(kind="detect", decode=decode, options=options), SIZE)
    logger = collecting_logger(trt, [])
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse(model.SerializeToString())
    kinds = {layers.kind for layers in layers_of_network(network).layers}
    assert ("nms" in kinds) == options.get("nms", True)
