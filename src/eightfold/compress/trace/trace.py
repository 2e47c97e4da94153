"""The trace: run the model once, watch every ATen call, and let labels show which channels are coupled.

It follows whatever Python the model executes, needs no export and knows no architecture; see `rules` for the operators.
Heavy products are not computed (see `fake_run`): the trace needs shapes, not values.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._ops import OpOverload
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from eightfold.compress.modules.modules import (
    call_model,
    module_code_name,
    module_paths,
    named_tensors,
    plain_attention,
    preserved,
    shapes_of,
    unwrapped,
)
from eightfold.compress.trace import scales, sizes
from eightfold.compress.trace.components import Grouping, group_channels, solve
from eightfold.compress.trace.fake.fake_run import run_or_fake
from eightfold.compress.trace.groups import ChannelGraph, LayerCall, NormCall, Role, Suspect
from eightfold.compress.trace.labels import LabelSpace, axes_of, clear_axes, set_axes
from eightfold.compress.trace.op_trace import OpTraceNotes
from eightfold.compress.trace.replay import scalar_factors_of
from eightfold.compress.trace.rules import RULES, Call
from eightfold.compress.trace.rules.base import RawLayer, RawNorm, Record, has_offset, marked_uniform, set_offset
from eightfold.compress.trace.rules.elementwise import elementwise, factory
from eightfold.compress.trace.rules.means import factors_of as growth_of
from eightfold.compress.trace.rules.means import follow_factors
from eightfold.compress.types import Args, ExampleInputs, Kwargs
from eightfold.errors import TraceError
from eightfold.export.verify.module_runs import require_single_precision, set_evaluation


def trace(model: nn.Module, example_inputs: ExampleInputs, *, layer_norms: bool = False) -> ChannelGraph:
    """Find every group of coupled channels of `model`.

    The model runs on `example_inputs` in evaluation mode, and once more in training mode when some parameters were not
    used (auxiliary heads). Where the code splits channels in two and the larger factor cannot shrink (the width of an
    attention head), it runs again to see whether the other one can (the number of heads). The model's parameters,
    buffers, mode and random state are left as they were.

    Args:
        model: any module.
        example_inputs: one tensor, or a tuple of positional arguments, or a dictionary of keyword arguments; or a list
            of such tuples and dictionaries: several calls, whose traces are merged.
        layer_norms: let channels go that a layer norm takes its mean and variance over. These change then, and the
            least-squares compensation, or training, has to make that good.

    Raises:
        TraceError: the model does not run on the inputs.
    """
    model = unwrapped(model)
    _require_shapes(model)
    graph, stuck = _follow(model, example_inputs, frozenset(), layer_norms)
    if not stuck:
        return graph
    other, _ = _follow(model, example_inputs, stuck, layer_norms)
    return max(graph, other, key=_free_outputs)


def _require_shapes(model: nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise TraceError(
                f"{name} has no shape yet: a lazy module gets it from its first input",
                allowed="parameters with shapes",
                remedy="run the model once before: model(torch.zeros(1, 3, height, width))",
            )


def _free_outputs(graph: ChannelGraph) -> int:
    """Output positions of all layers that may be pruned."""
    return sum(len(member.indices()) for group in graph.free for member in group.members_as("producer"))


# Reasons that freeze the width of a head, but not the number of heads.
_FREEZES_A_FACTOR = (
    "the scale of attention", "layer norm over channels", "softmax over channels", "mean over channels",
    "var over channels", "statistics over channels",
)  # fmt: skip


def _follow(
    model: nn.Module, inputs: ExampleInputs, second_choice: frozenset[int], layer_norms: bool
) -> tuple[ChannelGraph, frozenset[int]]:
    """The graph, and the splits of modules where a larger factor turned out frozen, though the smaller might not be."""
    tensors = named_tensors(model)
    integers = functools.partial(sizes.integers_of, model)
    record = Record(LabelSpace(), integers, layer_norms, second_choice, weights=scales.weights_of(model))
    used: set[int] = set()
    with _labelled(record.space, tensors), module_paths(model) as path:
        _run(model, inputs, record, used, path, training=False)
        if any(id(tensor) not in used for _, tensor in model.named_parameters()):
            try:
                _run(model, inputs, record, used, path, training=True)
            except TraceError as error:
                record.warnings.append(f"what runs in training mode only was not followed: {error.seen}")
        for name, tensor in tensors.items():
            if id(tensor) not in used:
                for labels in axes_of(tensor).values():
                    record.space.freeze(labels, f"{name} is not used by the forward pass")
        unreached = tuple(name for name, tensor in model.named_parameters() if id(tensor) not in used)
        return _graph(model, record, tensors, unreached)


@contextlib.contextmanager
def _labelled(space: LabelSpace, tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
    try:
        for name, tensor in tensors.items():
            set_axes(tensor, space.add_slots(name, tensor.shape))
        yield
    finally:
        for tensor in tensors.values():
            clear_axes(tensor)


def _run(
    model: nn.Module, inputs: ExampleInputs, record: Record, used: set[int], path: list[str], *, training: bool
) -> None:
    with preserved(model), torch.no_grad(), plain_attention():
        inputs = _doubled(inputs) if training else inputs
        try:
            if training:
                model.train()  # which modules of torch.export refuse
            else:
                set_evaluation(model)
            with _Watch(record, used, path, None if training else record.trail):
                result = call_model(model, inputs)
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError, KeyError, AttributeError) as error:
            if any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float32 for leaf in tree_leaves(inputs)):
                require_single_precision(model)
            raise TraceError(
                f"the model does not run on the example inputs ({type(error).__name__}: {error})",
                remedy="pass example_inputs with which model(*example_inputs) works in evaluation mode",
            ) from error
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if not training:
            record.outputs = tuple(tuple(leaf.shape) for leaf in leaves)
        for leaf in leaves:
            for labels in (*axes_of(leaf).values(), *(factor.labels for factor in growth_of(leaf))):
                record.space.freeze(labels, "output of the model")


def _doubled(inputs: Any) -> Any:
    """A batch of one becomes two, because batch norm cannot train on one."""
    return tree_map(lambda x: torch.cat([x, x]) if isinstance(x, torch.Tensor) and x.dim() == 4 else x, inputs)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base class has no annotations
    """Applies the rule of every operator that meets a labelled tensor."""

    def __init__(self, record: Record, used: set[int], path: list[str], trail: OpTraceNotes | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.record, self.used, self.path, self.trail = record, used, path, trail

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Args = (), kwargs: Kwargs | None = None
    ) -> Any:
        result = run_or_fake(func, args, kwargs or {})
        call = Call(func, func.overloadpacket.__name__, args, kwargs or {}, result, self.path[-1], self.record)
        self.used.update(id(tensor) for tensor in call.tensors)
        self.record.data_dependent |= call.name in _DATA_DEPENDENT
        _apply_rule(call)
        if self.trail is not None:
            self.trail.add(
                call.name, scalar_factors_of(call.name, args), [(out.dim(), axes_of(out)) for out in call.outs]
            )
        return result


# Operators whose output shape depends on values: boxes that survive, for example.
_DATA_DEPENDENT = frozenset(("nonzero", "nms", "masked_select", "unique", "_unique2", "unique_dim", "argwhere"))


def _apply_rule(call: Call) -> None:
    labelled = [tensor for tensor in call.tensors if axes_of(tensor)]
    rule = RULES.get(call.name)
    if rule is None and _is_pointwise(call.func):
        rule = elementwise
    offset = any(has_offset(tensor) for tensor in labelled)
    for out in call.outs:
        set_offset(out, offset)  # rules of operators that change it set it anew
    concerned = labelled or rule in (elementwise, factory) or any(marked_uniform(tensor) for tensor in call.tensors)
    if rule is not None and concerned:
        rule(call)
    elif rule is None and call.outs:
        for tensor in labelled:
            call.freeze(tensor, f"operator {call.func.overloadpacket}")
    follow_factors(call)


@functools.cache
def _is_pointwise(func: Any) -> bool:
    """True if ATen tags the operator, or the plain form of an in-place one, as pointwise."""
    if torch.Tag.pointwise in func.tags:
        return True
    packet = func.overloadpacket
    plain = getattr(torch.ops.aten, packet.__name__.removesuffix("_"), packet)
    return any(torch.Tag.pointwise in getattr(plain, overload).tags for overload in plain.overloads())


def _graph(
    model: nn.Module, record: Record, tensors: Mapping[str, torch.Tensor], unreached: tuple[str, ...]
) -> tuple[ChannelGraph, frozenset[int]]:
    space = record.space
    folds = scales.settled(record)
    widths = [labels for layer in record.layers for labels in (layer.inputs, layer.outputs)]
    components = solve(space)
    grouping = group_channels(space, components, _roles(record), widths).of_layers()
    stuck = {split.module for split in record.splits if components.frozen_for(split.labels, _FREEZES_A_FACTOR)}
    names = {id(tensor): name for name, tensor in tensors.items()}
    layers = tuple(_layer(layer, grouping, names) for layer in record.layers)
    graph = ChannelGraph(
        grouping.groups,
        layers,
        shapes_of(model),
        norms=tuple(_norm(norm, grouping, names) for norm in record.norms),
        layer_norms=record.layer_norms,
        sizes=sizes.links(model, record, grouping),
        suspects=_suspects(model, record, grouping),
        scales=scales.scale_links(folds, names, grouping),
        trail=record.trail.solved(grouping.place),
        outputs=record.outputs,
        data_dependent=record.data_dependent,
        warnings=tuple(record.warnings),
        unreached=unreached,
    )
    # Query, key and value are split alike, and only the first two are normalized or scaled.
    return graph, frozenset(number for number, split in enumerate(record.splits) if split.module in stuck)


def _roles(record: Record) -> dict[int, Role]:
    """Slots that weights and biases of layers use, found by the labels that the layers saw."""
    firsts = np.array([slot.first for slot in record.space.slots])
    roles: dict[int, Role] = {}

    def mark(tensor: torch.Tensor | None, dim: int, role: Role) -> None:
        labels = axes_of(tensor).get(dim)
        if labels is not None and labels[0] > 0:
            roles[int(np.searchsorted(firsts, labels[0], side="right")) - 1] = role

    for layer in record.layers:
        out, into = (1, 0) if layer.op != "conv" else (0, 1)
        mark(layer.weight, into, "consumer")
        mark(layer.weight, out, "producer")
        mark(layer.bias, 0, "producer")
    return roles


def _layer(raw: RawLayer, grouping: Grouping, names: Mapping[int, str]) -> LayerCall:
    weight = raw.weight if id(raw.weight) in names else raw.weight._base
    bias = raw.bias if raw.bias is None or id(raw.bias) in names else raw.bias._base
    return LayerCall(
        op=raw.op,  # type: ignore[arg-type]  # the rules use the three names
        module=raw.module,
        weight=names.get(id(weight), ""),
        bias=names.get(id(bias), ""),
        inputs=grouping.places(raw.inputs),
        outputs=grouping.places(raw.outputs),
        macs=raw.macs,
        **raw.geometry,
    )


def _norm(raw: RawNorm, grouping: Grouping, names: Mapping[int, str]) -> NormCall:
    weight, bias = names.get(id(raw.weight), ""), names.get(id(raw.bias), "")
    return NormCall(weight, bias, grouping.places(raw.channels))


def _suspects(model: nn.Module, record: Record, grouping: Grouping) -> tuple[Suspect, ...]:
    found: dict[Suspect, None] = {}
    for size in record.sizes:
        code = module_code_name(model.get_submodule(size.module))
        for group in np.unique(grouping.places(size.labels)[:, 0]).tolist():
            if group >= 0:
                found[Suspect(size.module, code, grouping.groups[group].id)] = None
    return tuple(found)
