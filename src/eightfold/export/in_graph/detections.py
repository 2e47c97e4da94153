"""Detections out of the network itself: boxes are decoded and suppressed in the graph, and a fixed number of rows comes
out, best first. Rules and options are those of the runtime's decoder for the same outputs (docs/decoders.md).

Suppression has two forms. "onnx" is the standard operator, for CPUs and for TensorRT from 8.5 on, which makes its NMS
layer of it (TensorRT-RTX has none and refuses). "efficient" is TensorRT's EfficientNMS plugin, for older versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from eightfold.errors import UsageError
from eightfold.export.in_graph.box_heads import BoxHead, Size, head_of
from eightfold.export.in_graph.candidates import best_candidates
from eightfold.export.opset.opset_conversion import with_opset
from eightfold.export.opset.opsets import family_and_version
from eightfold.onnx_graph.graph_builder import GraphBuilder
from eightfold.onnx_graph.graph_index import GraphIndex, drop_unused
from eightfold.onnx_graph.onnx_clean import clean
from eightfold.onnx_graph.onnx_files import opset_of, tensor_specs
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.detect import Detector
from eightfold.runtime.postprocess.yolo import EndToEnd

if TYPE_CHECKING:
    import onnx

Form = Literal["onnx", "efficient"]
OUTPUT = "detections"
FLOAT = 1  # onnx.TensorProto.FLOAT
LOWEST_OPSET = 13
# From here on TensorRT's parser makes a layer of NonMaxSuppression:
# https://github.com/onnx/onnx-tensorrt/blob/release/8.5-GA/docs/Changelog.md
NMS_LAYER_SINCE = (8, 5)


def form_for(targets: Sequence[str]) -> Form:
    """The form of suppression that all targets run.

    >>> form_for(["cpu-x86", "tensorrt:10.3"]), form_for(["tensorrt:8.2"])
    ('onnx', 'efficient')

    Raises:
        UsageError: there is none.
    """
    forms = {target: _form_for(target) for target in targets}
    if len(set(forms.values())) > 1:
        raise UsageError(
            f"suppression in the graph for {', '.join(targets)}",
            allowed="TensorRT before 8.5, which takes the EfficientNMS plugin, or others, which do not",
            remedy="make a bundle for each, or leave decoding to the runtime",
        )
    return next(iter(forms.values()), "onnx")


def _form_for(target: str) -> Form:
    family, version = family_and_version(target)
    if family == "rtx":
        raise UsageError(
            f"suppression in the graph for {target}",
            allowed="targets other than TensorRT-RTX, which has no operator for it",
            remedy="leave decoding to the runtime",
        )
    return "efficient" if family == "tensorrt" and version < NMS_LAYER_SINCE else "onnx"


def with_detections(
    model: onnx.ModelProto, task: Task, size: Size, *, form: Form = "onnx"
) -> tuple[onnx.ModelProto, Task]:
    """Append what the task's decoder does to a detector's outputs.

    Args:
        model: a fixed-size graph.
        task: what its outputs mean; the options hold thresholds and the number of rows that come out.
        size: (height, width) of the network's input in pixels.
        form: of the suppression, see above.

    Returns:
        The new graph and its task, whose decoder is "end-to-end": one output "detections", float32
        (batch, max_detections, 6) with x1, y1, x2, y2 in tensor pixels, score, class per row; unused rows have score 0.

    Raises:
        UsageError: the task's decoder has no form in a graph, or the graph's outputs are not what it takes.
    """
    from onnx import ModelProto, TensorProto, helper

    decoder = _detector(task)
    if opset_of(model) < LOWEST_OPSET:
        model = with_opset(model, LOWEST_OPSET, remedy="export it again with a newer opset")
    made = ModelProto()
    made.CopyFrom(model)
    outputs = tensor_specs(made)[1]
    batch = outputs[0].shape[0]
    build = GraphBuilder(GraphIndex(made.graph), "decode")
    suppressor = _Suppressor(build, decoder, head_of(build, decoder, outputs, size), batch)
    name = build.index.free(OUTPUT)
    suppressor.put_out(name, form)
    made.graph.node.extend(build.nodes)
    del made.graph.output[:]
    shape = (batch, suppressor.count, 6)
    made.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    drop_unused(made.graph)
    return clean(made), decoded_task(task)


def decoded_task(task: Task) -> Task:
    """The task of the outputs when the task's decoder is in the graph. Raises UsageError if it cannot be."""
    decoder = _detector(task)
    options = {"score_threshold": decoder.score_threshold, "max_detections": decoder.max_detections}
    return Task(kind="detect", decode="end-to-end", labels=task.labels, options=options)


def _detector(task: Task) -> Detector:
    decoder = decoder_of(task)
    if not isinstance(decoder, Detector) or isinstance(decoder, EndToEnd):
        raise UsageError(
            f"the task's decoder is {task.decode!r}",
            allowed="a detector without decoding and suppression in the graph",
            remedy="name the task of the outputs",
        )
    if decoder.nms and decoder.soft_sigma:
        raise UsageError("soft suppression in the graph", allowed="soft_sigma 0", remedy="leave it to the runtime")
    return decoder


class _Suppressor:
    """From candidates to the rows that come out, as nodes."""

    def __init__(self, build: GraphBuilder, decoder: Detector, head: BoxHead, batch: int) -> None:
        self.build, self.decoder, self.batch = build, decoder, batch
        found = best_candidates(build, decoder, head, batch)
        location = build.add("Div", found.numbers, build.ints(head.classes))
        self.classes = build.add("Sub", found.numbers, build.add("Mul", location, build.ints(head.classes)))
        self.boxes, self.scores = self._rows_of(head.boxes, location), found.scores
        self.candidates, self.count = found.count, min(decoder.max_detections, found.count)
        # All compete with each other where classes do not matter.
        self.groups = 1 if decoder.agnostic else head.classes

    def put_out(self, name: str, form: Form) -> None:
        build = self.build
        if self.decoder.nms and form == "efficient":
            boxes, scores, classes = self._plugin()
        else:
            kept = self._survivors() if self.decoder.nms else self._above_threshold()
            scores, places = build.add_many(2, "TopK", kept, build.ints([self.count]), axis=1)
            boxes = self._rows_of(self.boxes, places)
            classes = build.add("GatherElements", self.classes, places, axis=1)
        columns = [build.column(scores, 2), build.column(build.add("Cast", classes, to=FLOAT), 2)]
        build.add("Concat", boxes, *columns, output=name, axis=2)

    def _rows_of(self, table: str, places: str) -> str:
        """(batch, n, 4) at (batch, n) places."""
        return self.build.add("GatherND", table, self.build.column(places, 2), batch_dims=1)

    def _by_group(self, axis: int) -> str:
        """The scores with a further axis for the classes, 0 where a candidate is of another class."""
        build = self.build
        scores = build.column(self.scores, axis)
        if self.groups == 1:
            return scores
        shape = (1, self.groups, 1) if axis == 1 else (1, 1, self.groups)
        own = build.add("Equal", build.column(self.classes, axis), build.ints(np.arange(self.groups).reshape(shape)))
        return build.add("Where", own, scores, build.floats(0.0))

    def _survivors(self) -> str:
        """Scores with all that do not survive set to 0: a static shape, where the list of survivors has none."""
        build, decoder = self.build, self.decoder
        scores = self._by_group(1)
        limits = (np.array([limit]) for limit in (decoder.iou_threshold, decoder.score_threshold))
        most = build.ints([self.count])
        kept = build.add("NonMaxSuppression", self._proper_boxes(), scores, most, *map(build.floats, limits))
        nothing = build.floats(np.zeros((self.batch, self.groups, self.candidates)))
        alive = build.add("ScatterND", nothing, kept, build.add("GatherND", scores, kept))
        return build.add("ReduceSum", alive, build.ints([1]), keepdims=0)

    def _proper_boxes(self) -> str:
        """Boxes whose second corner lies left of the first or above it overlap with none, for the decoder; the operator
        would turn them round. Without an area they overlap with none there, too."""
        near, far = self.build.split(self.boxes, [2, 2], 2)
        return self.build.concat([near, self.build.add("Max", near, far)], 2)

    def _above_threshold(self) -> str:
        build = self.build
        above = build.add("Greater", self.scores, build.floats(self.decoder.score_threshold))
        return build.add("Where", above, self.scores, build.floats(0.0))

    def _plugin(self) -> tuple[str, str, str]:
        """TensorRT's EfficientNMS_TRT (its plugin/efficientNMSPlugin/README.md): boxes, scores, classes."""
        build, decoder = self.build, self.decoder
        if decoder.agnostic:
            raise UsageError(
                "agnostic suppression in the graph for TensorRT before 8.5",
                allowed="agnostic: false, or a newer TensorRT",
                remedy="leave decoding to the runtime",
            )
        found, boxes, scores, classes = build.add_many(
            4,
            "EfficientNMS_TRT",
            self.boxes,
            self._by_group(2),
            plugin_version="1",
            background_class=-1,
            box_coding=0,  # corners
            max_output_boxes=self.count,
            score_threshold=float(decoder.score_threshold),
            iou_threshold=float(decoder.iou_threshold),
            score_activation=0,
        )
        # Only so many rows are valid.
        rank = build.index.set_weight("decode_rank", np.arange(self.count, dtype=np.int32)[None])
        return boxes, build.add("Where", build.add("Less", rank, found), scores, build.floats(0.0)), classes
