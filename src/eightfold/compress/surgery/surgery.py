"""Surgery: apply a plan to a model in place, or for the length of a `with` block."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from eightfold.compress.modules.modules import all_tensors, shapes_of, unwrapped
from eightfold.compress.modules.weight_norm import weight_of, weights_kept
from eightfold.compress.plan.plan import PrunePlan, Shapes
from eightfold.compress.surgery.blocks import remove_blocks
from eightfold.compress.trace.groups import Index, Kept, SizeLink, removed_count
from eightfold.compress.trace.macs import count_parameters
from eightfold.compress.trace.sizes import get_size, set_size
from eightfold.errors import PlanMismatchError


@dataclass(frozen=True)
class Width:
    """Output and input channels of one layer, before and after."""

    weight: str
    before: tuple[int, int]
    after: tuple[int, int]


@dataclass(frozen=True)
class PruneReport:
    """Widths before and after surgery."""

    widths: tuple[Width, ...]  # every weight with an output and an input dimension, in the model's order
    parameters_before: int
    parameters_after: int

    @property
    def changed(self) -> tuple[Width, ...]:
        """The widths that surgery changed."""
        return tuple(width for width in self.widths if width.before != width.after)

    def describe(self) -> str:
        """A line for every weight that changed, and what became of them all."""
        share = self.parameters_after / max(self.parameters_before, 1)
        rows = [
            f"  {w.weight}: {w.before[1]} -> {w.before[0]} becomes {w.after[1]} -> {w.after[0]}" for w in self.changed
        ]
        changed = f"{len(self.changed)} of {len(self.widths)} weights changed"
        sizes = f"parameters {self.parameters_before:,} -> {self.parameters_after:,} ({share:.1%})"
        return "\n".join([*rows, changed, sizes])


def apply_plan_to_module(
    model: nn.Module, plan: PrunePlan, *, optimizer: torch.optim.Optimizer | None = None
) -> PruneReport:
    """Remove the plan's residual blocks and channels from `model`, in place.

    Parameters keep their identity (tied weights stay tied, an optimizer keeps its references), and with `optimizer`
    given, its per-parameter state (momentum, second moments) loses the same channels.

    Raises:
        PlanMismatchError: the model is not the architecture the plan was made for; names the first tensor and shapes.
    """
    model = unwrapped(model)
    count = count_parameters(model)
    before, after = _apply(model, plan, optimizer, _select)
    return PruneReport(_widths(before, after), count, count_parameters(model))


Cut = Callable[[torch.Tensor, int, torch.Tensor], torch.Tensor]
"""(tensor, dim, kept positions) -> the tensor without the others."""


def _select(tensor: torch.Tensor, dim: int, kept: torch.Tensor) -> torch.Tensor:
    return tensor.index_select(dim, kept)


def _first(tensor: torch.Tensor, dim: int, kept: torch.Tensor) -> torch.Tensor:
    """As many positions as are kept, but the first ones: a view, for when the shape is all that counts."""
    return tensor.narrow(dim, 0, len(kept))


def _apply(
    model: nn.Module, plan: PrunePlan, optimizer: torch.optim.Optimizer | None, cut: Cut
) -> tuple[Shapes, Shapes]:
    """Surgery; returns the shapes before and after, without the removed blocks."""
    remove_blocks(model, plan.removed_blocks)
    before = shapes_of(model)
    plan.check_fits(before)
    removed = plan.removed_indices()
    with weights_kept(model, {name for name, _ in removed}):
        _cut_tensors(model, removed, optimizer, cut)
        _scale_tensors(model, plan)
    _update_attributes(model, plan)
    return before, shapes_of(model)


@contextlib.contextmanager
def applied(model: nn.Module, plan: PrunePlan, *, shapes_only: bool = False) -> Iterator[nn.Module]:
    """`model` with the plan applied inside the block, and as it was afterwards. No original tensor is copied.

    With `shapes_only`, tensors get the right shapes but keep their first channels instead of the chosen ones.
    """
    model = unwrapped(model)
    tensors = all_tensors(model)
    data = {name: (tensor.data, tensor.grad) for name, tensor in tensors.items()}
    # The dictionary of sub-modules is changed in place where blocks go, so a copy of it is kept.
    attributes = {module: {**vars(module), "_modules": dict(module._modules)} for module in model.modules()}
    for tensor in tensors.values():
        tensor.grad = None
    try:
        _apply(model, plan, None, _first if shapes_only else _select)
        yield model
    finally:
        for name, tensor in tensors.items():
            tensor.grad = None
            tensor.data, tensor.grad = data[name]
        for module, values in attributes.items():
            module.__dict__.update(values)


def _cut_tensors(
    model: nn.Module, removed: Mapping[tuple[str, int], Index], optimizer: torch.optim.Optimizer | None, cut: Cut
) -> None:
    tensors = all_tensors(model)
    known: dict[tuple[int, int, torch.device], torch.Tensor] = {}  # many tensors lose the same positions
    for (name, dim), gone in removed.items():
        tensor = tensors[name]
        key = (id(gone), tensor.shape[dim], tensor.device)
        if key not in known:
            known[key] = torch.from_numpy(np.delete(np.arange(tensor.shape[dim]), gone)).to(tensor.device)
        kept = known[key]
        old_shape = tensor.shape
        if tensor.grad is not None:
            gradient, tensor.grad = tensor.grad, None
            tensor.data = cut(tensor.data, dim, kept)
            tensor.grad = cut(gradient, dim, kept)
        else:
            tensor.data = cut(tensor.data, dim, kept)
        if optimizer is not None and tensor in optimizer.state:
            _cut_state(optimizer.state[tensor], old_shape, dim, kept)


def _cut_state(state: dict[str, Any], shape: torch.Size, dim: int, kept: torch.Tensor) -> None:
    for key, value in state.items():
        if isinstance(value, torch.Tensor) and value.shape == shape:
            state[key] = value.index_select(dim, kept)


def _scale_tensors(model: nn.Module, plan: PrunePlan) -> None:
    """Weights behind means over channels whose number has changed."""
    tensors = all_tensors(model) if plan.scales else {}
    for link in plan.scales:
        tensors[link.tensor].data = tensors[link.tensor].data * link.factor(plan.kept)


def _update_attributes(model: nn.Module, plan: PrunePlan) -> None:
    names = {member.tensor for group in plan.groups for member in group.members}
    modules = dict(model.named_modules())
    for path in {name.rpartition(".")[0] for name in names} | _tied_owners(model, modules, names):
        _sync_owner(modules, path)
    kept = plan.kept
    for link in plan.sizes:
        _update_size(model, link, kept)


def _tied_owners(model: nn.Module, modules: Mapping[str, nn.Module], names: Set[str]) -> set[str]:
    """Paths of the modules that hold one of the tensors under another name."""
    tensors = all_tensors(model)
    changed = {id(tensors[name]) for name in names}
    return {
        path for path, module in modules.items() if any(id(each) in changed for each in module._parameters.values())
    }


def _sync_owner(modules: Mapping[str, nn.Module], path: str) -> None:
    """The sizes that torch's layers keep beside their tensors; parametrized tensors lie below their layer. Names of
    ONNX weights need not be paths of modules."""
    owner = modules.get(path.partition(".parametrizations")[0].removesuffix("parametrizations"))
    if owner is not None:
        sync_sizes(owner)


def sync_sizes(module: nn.Module) -> None:
    """Sets in_channels, num_features, normalized_shape and similar attributes of a layer from its tensors."""
    weight = weight_of(module)
    if isinstance(module, nn.modules.conv._ConvNd) and isinstance(weight, torch.Tensor):
        _sync_conv(module, weight)
    elif isinstance(module, nn.Linear) and isinstance(weight, torch.Tensor):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm)):
        _sync_norm(module)
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and isinstance(weight, torch.Tensor):
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        _sync_recurrent(module)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape


def _sync_conv(module: nn.modules.conv._ConvNd, weight: torch.Tensor) -> None:
    first, second = weight.shape[:2]
    whole_groups = module.in_channels == module.groups  # depthwise: the groups are channels and shrink with them
    if module.transposed:
        module.groups = first if whole_groups else module.groups
        module.in_channels, module.out_channels = first, second * module.groups
        return
    if whole_groups and module.groups > 1:
        module.groups = first * module.groups // module.out_channels
    module.out_channels, module.in_channels = first, second * module.groups


def _sync_recurrent(module: nn.RNNBase | nn.RNNCellBase) -> None:
    end = "_l0" if isinstance(module, nn.RNNBase) else ""
    into, again = getattr(module, f"weight_ih{end}"), getattr(module, f"weight_hh{end}")
    module.input_size = into.shape[1]
    module.hidden_size = again.shape[1]


def _sync_norm(module: nn.modules.batchnorm._NormBase | nn.GroupNorm) -> None:
    known = [getattr(module, name, None) for name in ("weight", "running_mean")]
    width = next((tensor.shape[0] for tensor in known if isinstance(tensor, torch.Tensor)), None)
    if width is None:
        return
    if isinstance(module, nn.GroupNorm):
        if module.num_groups > 1:
            module.num_groups = width * module.num_groups // module.num_channels  # whole groups go
        module.num_channels = width
    else:
        module.num_features = width


def _update_size(model: nn.Module, link: SizeLink, kept: Kept) -> None:
    module = model.get_submodule(link.module)
    seen = get_size(module, link.attribute)
    if seen != link.value:
        raise PlanMismatchError(
            f"{link.module}.{link.attribute} is {seen!r}",
            allowed=f"{link.value} as in the plan",
            remedy="apply the plan to the model it was made for",
        )
    set_size(module, link.attribute, link.value - removed_count(link.parts, kept))


def _widths(before: Shapes, after: Shapes) -> tuple[Width, ...]:
    names: Iterable[str] = (name for name, shape in before.items() if len(shape) >= 2)
    return tuple(Width(name, before[name][:2], after[name][:2]) for name in names)  # type: ignore[arg-type]
