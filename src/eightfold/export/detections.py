"""Non-maximum suppression inside the network: fixed-size detections come out, best first.

Two forms. "onnx" uses standard operators, for CPUs and for TensorRT from 8.5 on (its NMS layer; TensorRT-RTX
has none and refuses). "efficient" is TensorRT's EfficientNMS plugin, which other runtimes do not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from eightfold.errors import UsageError
from eightfold.export.onnx_clean import clean
from eightfold.export.onnx_files import tensor_specs
from eightfold.export.passes.graph_index import GraphIndex
from eightfold.runtime.manifest import Task, TensorSpec
from eightfold.values import Frozen

if TYPE_CHECKING:
    import onnx

OUTPUT = "detections"
LOWEST_OPSET = 13


class Suppression(Frozen):
    """Settings of the suppression, as in the runtime's detectors: one class per location, classes apart."""

    score_threshold: float = 0.25
    iou_threshold: float = Field(default=0.45, ge=0, le=1)
    max_detections: int = Field(default=300, ge=1)


def with_nms(
    model: onnx.ModelProto, task: Task, suppression: Suppression, *, form: Literal["onnx", "efficient"] = "onnx"
) -> tuple[onnx.ModelProto, Task]:
    """Append suppression to a detector that puts out decoded boxes.

    Args:
        model: a fixed-size graph with one output (batch, 4 + classes, locations): centre x, centre y, width, height
            in pixels, then class scores; what the decoder "yolo-boxes" takes.
        task: the task of that graph.
        suppression: thresholds and the number of rows that come out.
        form: see above.

    Returns:
        The new graph and its task. Form "onnx": one output "detections", float32 (batch, max_detections, 6) with
        x1, y1, x2, y2, score, class per row, best first, unused rows with score 0; its decoder is "end-to-end".
        Form "efficient": the plugin's outputs num_dets, det_boxes, det_scores and det_classes.

    Raises:
        UsageError: the graph's output is another one.
    """
    from onnx import ModelProto

    output = _output(model)
    made = ModelProto()
    made.CopyFrom(model)
    index = GraphIndex(made.graph)
    builder = _Suppressor(index, output, suppression)
    values = builder.onnx_form() if form == "onnx" else builder.efficient_form()
    made.graph.node.extend(builder.nodes)
    del made.graph.output[:]
    made.graph.output.extend(values)
    options = {"score_threshold": suppression.score_threshold}
    decoded = Task(kind="detect", decode="end-to-end", labels=task.labels, options=options)
    return clean(made), decoded if form == "onnx" else Task(kind="tensors", decode="tensors", labels=task.labels)


def _output(model: onnx.ModelProto) -> TensorSpec:
    _, outputs = tensor_specs(model)
    if len(outputs) != 1 or len(outputs[0].shape) != 3 or outputs[0].shape[1] < 5:
        seen = ", ".join(f"{spec.name} {spec.shape}" for spec in outputs)
        raise UsageError(f"the graph puts out {seen}", allowed="one output (batch, 4 + classes, locations)")
    return outputs[0]


class _Suppressor:
    """Appends nodes one by one; every method returns the names of what it computed."""

    def __init__(self, index: GraphIndex, output: TensorSpec, settings: Suppression) -> None:
        self.index, self.source, self.settings = index, output.name, settings
        self.batch, rows, self.locations = output.shape
        self.classes = rows - 4
        self.nodes: list[onnx.NodeProto] = []

    def onnx_form(self) -> list[onnx.ValueInfoProto]:
        from onnx import TensorProto, helper

        boxes, scores = self._boxes_and_scores()
        masked = self._best_class_only(scores)
        kept = self._suppressed(boxes, masked)
        count = min(self.settings.max_detections, self.classes * self.locations)
        flat = self._add("Reshape", [kept, self._ints("flat", [self.batch, -1])])
        best, places = self._add_many("TopK", [flat, self._ints("count", [count])], 2, axis=1)
        locations = self._add("Mod", [places, self._ints("locations", [self.locations])])
        classes = self._add("Div", [places, self._ints("locations", [self.locations])])
        corners = self._corners(boxes, locations)
        columns = [self._column(best), self._column(self._add("Cast", [classes], to=TensorProto.FLOAT))]
        self._add("Concat", [*corners, *columns], output=OUTPUT, axis=2)
        return [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, (self.batch, count, 6))]

    def efficient_form(self) -> list[onnx.ValueInfoProto]:
        from onnx import TensorProto, helper

        boxes, scores = self._boxes_and_scores()
        last = self._add("Transpose", [scores], perm=(0, 2, 1))
        count, integer, real = self.settings.max_detections, TensorProto.INT32, TensorProto.FLOAT
        names = ("num_dets", "det_boxes", "det_scores", "det_classes")
        kinds = ((integer, (1,)), (real, (count, 4)), (real, (count,)), (integer, (count,)))
        plugin = helper.make_node(
            "EfficientNMS_TRT",
            [boxes, last],
            list(names),
            name="nms",
            plugin_version="1",
            background_class=-1,
            box_coding=1,  # centre and size
            max_output_boxes=count,
            score_threshold=self.settings.score_threshold,
            iou_threshold=self.settings.iou_threshold,
            score_activation=0,
        )
        self.nodes.append(plugin)
        return [
            helper.make_tensor_value_info(name, kind, (self.batch, *shape))
            for name, (kind, shape) in zip(names, kinds, strict=True)
        ]

    def _boxes_and_scores(self) -> tuple[str, str]:
        """(batch, locations, 4) and (batch, classes, locations)."""
        sizes = self._ints("sizes", [4, self.classes])
        boxes, scores = self._add_many("Split", [self.source, sizes], 2, axis=1)
        return self._add("Transpose", [boxes], perm=(0, 2, 1)), scores

    def _best_class_only(self, scores: str) -> str:
        """Scores with all but the best class of each location set to 0."""
        best = self._add("ArgMax", [scores], axis=1, keepdims=1)
        numbers = self.index.set_weight("nms_classes", np.arange(self.classes)[None, :, None])
        is_best = self._add("Equal", [numbers, best])
        return self._add("Where", [is_best, scores, self._float("zero", 0.0)])

    def _suppressed(self, boxes: str, scores: str) -> str:
        """Scores with all that do not survive set to 0: a static shape, where the list of survivors has none."""
        limits = [
            self._ints("most", [self.settings.max_detections]),
            self._float("iou", self.settings.iou_threshold, [1]),
            self._float("score", self.settings.score_threshold, [1]),
        ]
        survivors = self._add("NonMaxSuppression", [boxes, scores, *limits], center_point_box=1)
        values = self._add("GatherND", [scores, survivors])
        nothing = self._add("Mul", [scores, self._float("zero", 0.0)])
        return self._add("ScatterND", [nothing, survivors, values])

    def _corners(self, boxes: str, locations: str) -> list[str]:
        """(batch, count, 2) of the upper left corners, and of the lower right ones."""
        chosen = self._add("GatherND", [boxes, self._column(locations)], batch_dims=1)
        centre, extent = self._add_many("Split", [chosen, self._ints("pair", [2, 2])], 2, axis=2)
        half = self._add("Mul", [extent, self._float("half", 0.5)])
        return [self._add("Sub", [centre, half]), self._add("Add", [centre, half])]

    def _column(self, name: str) -> str:
        return self._add("Unsqueeze", [name, self._ints("last", [2])])

    def _ints(self, name: str, values: list[int]) -> str:
        return self.index.set_weight(f"nms_{name}", np.array(values, np.int64))

    def _float(self, name: str, value: float, shape: list[int] | None = None) -> str:
        return self.index.set_weight(f"nms_{name}", np.full(shape or [], value, np.float32))

    def _add(self, op: str, inputs: list[str], output: str = "", **attributes: object) -> str:
        return self._add_many(op, inputs, 1, output, **attributes)[0]

    def _add_many(self, op: str, inputs: list[str], count: int, output: str = "", **attributes: object) -> list[str]:
        from onnx import helper

        name = f"nms/{len(self.nodes)}_{op}"
        outputs = [output] if output else [f"{name}_{place}" for place in range(count)]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, **attributes))  # type: ignore[arg-type]
        return outputs
