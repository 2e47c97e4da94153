"""Standard operators that the parsers of some targets lack, as data. Every entry names its source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eightfold.errors import ModelError
from eightfold.export.opset.opsets import family_and_version
from eightfold.onnx_graph.names import inner_graphs

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Since:
    """The first version of a family of targets that reads an operator.

    Args:
        version: (major, minor); None where no version does.
        source: where that stands.
    """

    operator: str
    family: str
    version: tuple[int, int] | None
    source: str


_CHANGELOG = "https://github.com/onnx/onnx-tensorrt/blob/release/8.5-GA/docs/Changelog.md"
_RTX = "measured by building with 1.7: 'ROIAlign plugin was not found in the plugin registry'"

LACKING = (
    Since("RoiAlign", "tensorrt", (8, 5), _CHANGELOG),
    Since("RoiAlign", "rtx", None, _RTX),
    Since("NonMaxSuppression", "tensorrt", (8, 5), _CHANGELOG),
    Since("NonMaxSuppression", "rtx", None, "TensorRT-RTX has no layer for it; measured by building"),
)


def require_operators(model: onnx.ModelProto, targets: Iterable[str]) -> None:
    """Raises ModelError where a target's parser lacks an operator of the graph."""
    used = set(_operators(model.graph))
    for target in targets:
        family, version = family_and_version(target)
        for entry in LACKING:
            if entry.operator in used and entry.family == family and not (entry.version and version >= entry.version):
                raise ModelError(
                    f"{target} has no {entry.operator}, which the network needs",
                    allowed=_allowed(entry.operator),
                    remedy="leave this target out",
                )


def _allowed(operator: str) -> str:
    since = next(each.version for each in LACKING if each.operator == operator and each.version)
    return f"CPUs, OpenVINO, and TensorRT {since[0]}.{since[1]} and later"


def _operators(graph: onnx.GraphProto) -> Iterable[str]:
    for node in graph.node:
        yield node.op_type
        for inner in inner_graphs(node):
            yield from _operators(inner)
