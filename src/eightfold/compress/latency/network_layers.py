"""Layers of a network as a back end runs them: operators that share a kernel become one layer.

A convolution takes in the batch norm, the addition of a residual connection and the activation behind it, as the
graph optimizers of onnxruntime, OpenVINO and TensorRT do. Operators that are no layer here (views, permutations,
softmax) are left to the fit to whole networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from eightfold.compress.latency.op_watch import SeenOp, watch
from eightfold.compress.plan.latency.widths import GroupWidth, NetworkLayer, width_of
from eightfold.compress.trace.groups import ChannelGraph, LayerCall
from eightfold.compress.types import ExampleInputs
from eightfold.runtime.bench.profile.layer_shape import LayerKind, LayerShape

ACTIVATIONS: Mapping[str, str] = {
    "relu": "relu", "hardtanh": "relu6", "clamp": "relu6", "clamp_min": "relu", "leaky_relu": "leaky_relu",
    "silu": "silu", "mish": "silu", "hardswish": "hardswish", "sigmoid": "sigmoid", "hardsigmoid": "hardsigmoid",
    "tanh": "tanh", "gelu": "gelu", "elu": "tanh", "prelu": "leaky_relu", "_prelu_kernel": "leaky_relu",
}  # fmt: skip
NORMS = frozenset({"native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "batch_norm"})
_PASSED = frozenset({"alias", "clone", "detach", "contiguous", "lift_fresh", "dropout"})


def network_layers(
    model: nn.Module, example_inputs: ExampleInputs, graph: ChannelGraph, *, batch: int = 1
) -> tuple[NetworkLayer, ...]:
    """The layers of `model` in execution order.

    Args:
        example_inputs: one call, of any number of images.
        graph: its trace on the same inputs.
        batch: images per call that the layers are meant for.
    """
    ops = watch(model, example_inputs, graph)
    first = next((leaf for leaf in tree_leaves(example_inputs) if isinstance(leaf, Tensor) and leaf.dim()), None)
    return _Fusing(ops, graph, batch / (1 if first is None else len(first))).layers()


class _Fusing:
    """One walk over the operators, in their order."""

    def __init__(self, ops: Sequence[SeenOp], graph: ChannelGraph, batch: float) -> None:
        self.ops, self.graph, self.batch = ops, graph, batch
        self.taken: set[int] = set()
        self._calls: dict[str, list[LayerCall]] = {}
        for layer in graph.layers:
            self._calls.setdefault(layer.weight, []).append(layer)

    def layers(self) -> tuple[NetworkLayer, ...]:
        found: list[NetworkLayer] = []
        for op in self.ops:
            if op.number not in self.taken:
                maker = _MAKERS.get(op.name)
                layer = maker(self, op) if maker is not None else None
                if layer is not None:
                    found.append(layer)
        return tuple(found)

    def layer_widths(self, op: SeenOp, x: int, dim: int) -> tuple[GroupWidth, GroupWidth]:
        """Input and output widths of a layer, from the trace's own record of it where there is one."""
        calls = self._calls.get(op.parameter, []) if op.parameter else []
        call = calls.pop(0) if calls else None
        if call is not None and len(call.inputs) == op.shapes[x][dim]:
            return width_of(call.inputs, len(call.inputs), self.graph), width_of(
                call.outputs, len(call.outputs), self.graph
            )
        return self.input_width(op, x, dim), self.output_width(op, len(op.out) - 1 if len(op.out) < 4 else 1)

    def input_width(self, op: SeenOp, position: int, dim: int) -> GroupWidth:
        """Of a tensor argument."""
        source = op.sources[position]
        places = self.ops[source].channels.get(dim) if source >= 0 else None
        return width_of(places, op.shapes[position][dim], self.graph)

    def output_width(self, op: SeenOp, dim: int) -> GroupWidth:
        return width_of(op.channels.get(dim), op.out[dim], self.graph)

    def tail(self, op: SeenOp, *, sums: bool) -> tuple[str, bool]:
        """The activation and the addition that run in the kernel of `op`; both are marked as taken."""
        last = self._behind_norm(op)
        residual = False
        if sums and (after := self._only_reader(last)) is not None and self._adds(after, last):
            residual, last = True, self._take(after)
        return self._activation(last), residual

    def _behind_norm(self, op: SeenOp) -> SeenOp:
        last = op
        while (after := self._only_reader(last)) is not None and after.name in NORMS | _PASSED:
            last = self._take(after)
        return last

    def _adds(self, after: SeenOp, last: SeenOp) -> bool:
        """An addition of two results of one shape, of which `last` is the one computed later."""
        others = [source for source in after.sources if source != last.number]
        same = len(after.shapes) == 2 and after.shapes[0] == after.shapes[1]
        return after.name == "add" and same and len(others) == 1 and 0 <= others[0] < last.number

    def _activation(self, last: SeenOp) -> str:
        readers = [self.ops[number] for number in dict.fromkeys(last.readers)]
        names = sorted(reader.name for reader in readers)
        if names == ["mul", "sigmoid"]:  # x * sigmoid(x), as graph files write it
            gate = next(reader for reader in readers if reader.name == "sigmoid")
            product = next(reader for reader in readers if reader.name == "mul")
            if set(product.sources) == {last.number, gate.number}:
                self._take(gate), self._take(product)
                return "silu"
        if len(readers) == 1 and readers[0].name in ACTIVATIONS:
            return ACTIVATIONS[self._take(readers[0]).name]
        return ""

    def _only_reader(self, op: SeenOp) -> SeenOp | None:
        readers = set(op.readers)
        return self.ops[readers.pop()] if len(readers) == 1 else None

    def _take(self, op: SeenOp) -> SeenOp:
        self.taken.add(op.number)
        return op

    def rows(self, op: SeenOp, position: int = 0) -> int:
        return self.images(op.shapes[position][0])

    def images(self, rows: int) -> int:
        """Rows at the batch that is asked for, where the run had `rows`."""
        return max(1, round(self.batch * rows))


def _convolution(walk: _Fusing, op: SeenOp) -> NetworkLayer | None:
    x, weight = op.shapes[:2]
    stride, padding, dilation, transposed, groups = (op.arguments[n] for n in (3, 4, 5, 6, 8))
    if len(x) != len(weight):  # without a batch
        return None
    depthwise = groups > 1 and groups == x[1] == op.out[1] and not transposed
    activation, residual = walk.tail(op, sums=True)
    shape = LayerShape(
        kind="depthwise" if depthwise else "conv_transpose" if transposed else "conv",
        batch=walk.rows(op),
        size=x[2:],
        kernel=weight[2:],
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        groups=1 if depthwise else groups,
        activation=activation,
        residual=residual,
    )
    return NetworkLayer(op.parameter or f"conv{op.number}", shape, *walk.layer_widths(op, 0, 1))


def _product(walk: _Fusing, op: SeenOp) -> NetworkLayer | None:
    position = 1 if op.name == "addmm" else 0
    if op.sources[position + 1] < 0 and not op.parameter:
        return None
    x = op.shapes[position]
    activation, _ = walk.tail(op, sums=False)
    shape = LayerShape(kind="linear", size=(walk.images(prod(x[:-1])),), activation=activation)
    return NetworkLayer(op.parameter or f"linear{op.number}", shape, *walk.layer_widths(op, position, len(x) - 1))


def _pool(kind: LayerKind) -> Callable[[_Fusing, SeenOp], NetworkLayer | None]:
    def make(walk: _Fusing, op: SeenOp) -> NetworkLayer | None:
        size = op.shapes[0][2:]
        if len(op.shapes[0]) != 4:
            return None
        kernel, stride, padding = (_pair(_argument(op, n, default)) for n, default in ((1, 1), (2, ()), (3, 0)))
        shape = LayerShape(
            kind=kind, batch=walk.rows(op), size=size, kernel=kernel, stride=stride or kernel, padding=padding
        )
        return _one_width(walk, op, shape)

    return make


def _global_pool(walk: _Fusing, op: SeenOp) -> NetworkLayer | None:
    x = op.shapes[0]
    whole = op.out[2:] in ((1, 1), ()) and (op.name != "mean" or _over_positions(op))
    if len(x) != 4 or not whole:
        return None
    return _one_width(walk, op, LayerShape(kind="global_pool", batch=walk.rows(op), size=x[2:]))


def _over_positions(op: SeenOp) -> bool:
    """True for a mean over height and width."""
    dims = _argument(op, 1, None) or ()
    return sorted(dim % len(op.shapes[0]) for dim in dims) == [2, 3]


def _sum(kind: LayerKind) -> Callable[[_Fusing, SeenOp], NetworkLayer | None]:
    def make(walk: _Fusing, op: SeenOp) -> NetworkLayer | None:
        if len(op.shapes) != 2 or len(op.out) != 4:
            return None
        alike = op.shapes[0] == op.shapes[1]
        if not alike and not (kind == "mul" and (1, 1) in (op.shapes[0][2:], op.shapes[1][2:])):
            return None
        activation, _ = walk.tail(op, sums=False)
        made = LayerShape(
            kind=kind if alike else "scale",
            batch=walk.images(op.out[0]),
            size=op.out[2:],
            activation=activation,
            parts=2 if alike else 1,
        )
        return _one_width(walk, op, made)

    return make


def _concat(walk: _Fusing, op: SeenOp) -> NetworkLayer | None:
    dim = op.arguments[1] % len(op.out) if len(op.arguments) > 1 else 0
    if len(op.out) != 4 or dim != 1 or len(op.shapes) < 2:
        return None
    shape = LayerShape(kind="concat", batch=walk.images(op.out[0]), size=op.out[2:], parts=len(op.shapes))
    return _one_width(walk, op, shape)


def _resize(walk: _Fusing, op: SeenOp) -> NetworkLayer | None:
    before, after = op.shapes[0][2:], op.out[2:]
    if len(op.out) != 4 or any(new % old for old, new in zip(before, after, strict=True)):
        return None
    factors = tuple(new // old for old, new in zip(before, after, strict=True))
    return _one_width(walk, op, LayerShape(kind="resize", batch=walk.rows(op), size=before, stride=factors))


def _norm(walk: _Fusing, op: SeenOp) -> NetworkLayer | None:
    """A batch norm that follows no convolution."""
    if len(op.out) != 4:
        return None
    activation, _ = walk.tail(op, sums=False)
    return _one_width(walk, op, LayerShape(kind="norm", batch=walk.rows(op), size=op.out[2:], activation=activation))


def _lone_activation(walk: _Fusing, op: SeenOp) -> NetworkLayer | None:
    if len(op.out) != 4 or prod(op.out[2:]) == 1:
        return None
    name = ACTIVATIONS[op.name]
    return _one_width(walk, op, LayerShape(kind="activation", batch=walk.rows(op), size=op.out[2:], activation=name))


def _one_width(walk: _Fusing, op: SeenOp, shape: LayerShape) -> NetworkLayer:
    width = walk.output_width(op, 1)
    return NetworkLayer(f"{shape.kind}{op.number}", shape, width, width)


def _argument(op: SeenOp, position: int, default: Any) -> Any:
    return op.arguments[position] if len(op.arguments) > position else default


def _pair(value: Any) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value, value)
    found = tuple(int(each) for each in value)
    return found * 2 if len(found) == 1 else found


_MAKERS: dict[str, Callable[[_Fusing, SeenOp], NetworkLayer | None]] = {
    "convolution": _convolution,
    "addmm": _product,
    "mm": _product,
    "max_pool2d_with_indices": _pool("max_pool"),
    "avg_pool2d": _pool("average_pool"),
    "_adaptive_avg_pool2d": _global_pool,
    "mean": _global_pool,
    "add": _sum("add"),
    "mul": _sum("mul"),
    "cat": _concat,
    "upsample_nearest2d": _resize,
    "upsample_bilinear2d": _resize,
    **dict.fromkeys(NORMS, _norm),
    **dict.fromkeys(ACTIVATIONS, _lone_activation),
}
