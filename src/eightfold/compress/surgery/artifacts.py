"""A pruned model on disk: `weights.safetensors` beside `plan.json`. Nothing in it is ever unpickled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from eightfold.compress.modules.modules import shapes_of, unwrapped
from eightfold.compress.plan.plan import PrunePlan, raise_first_difference
from eightfold.compress.surgery.source_record import SOURCE, SourceRecord
from eightfold.compress.surgery.standalone import LOADER, LOADER_CODE, SIZES, sizes_json
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.errors import ModelError
from eightfold.extras import require
from eightfold.files import PathLike, atomic_directory, require_folder_for, require_replaceable, write_text

WEIGHTS, PLAN = "weights.safetensors", "plan.json"


def save_pruned(
    model: nn.Module,
    plan: PrunePlan,
    directory: PathLike,
    *,
    source: SourceRecord | None = None,
    standalone: bool = False,
    write_native: Callable[[Path], object] | None = None,
) -> Path:
    """Write the pruned `model` and its `plan` into `directory` (made new, or replaced whole).

    Args:
        source: the network that was pruned, written as `source.json`; with it, every command takes the folder.
        standalone: also write `load.py`, which loads the network with torch and safetensors only.
        write_native: called with the folder: writes the network in the format of its own library, too.

    Raises:
        PlanMismatchError: the model's shapes are not those that the plan leads to.
    """
    model = unwrapped(model)
    raise_first_difference(
        plan.pruned_shapes(),
        shapes_of(model),
        what="the plan's result",
        remedy="save the model the plan was applied to",
    )
    safetensors = require("safetensors.torch", "save weights")
    with atomic_directory(directory, replaces=_marks(Path(directory))) as temporary:
        safetensors.save_file(own_memory(model), temporary / WEIGHTS, metadata={"plan": plan.digest()})
        plan.save(temporary / PLAN)
        if source is not None:
            source.save(temporary / SOURCE)
        if standalone:
            write_text(temporary / LOADER, LOADER_CODE)
            write_text(temporary / SIZES, sizes_json(model, plan))
        if write_native is not None:
            write_native(temporary)
    return Path(directory)


def load_pruned(factory: Callable[[], nn.Module], directory: PathLike) -> nn.Module:
    """Build the original architecture with `factory`, apply the stored plan and load the stored weights.

    Raises:
        PlanMismatchError: `factory` builds another architecture, or the weights do not fit; names the first tensor that
            differs and both shapes.
        ModelError: a file is missing or damaged.
    """
    directory = Path(directory)
    plan = PrunePlan.load(directory / PLAN)
    weights = _read(directory / WEIGHTS)
    model = factory()
    apply_plan_to_module(model, plan)
    seen = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    raise_first_difference(expected, seen, what="the pruned model", remedy="save it again with save_pruned")
    model.load_state_dict(weights)
    return model


def require_pruned_output(directory: PathLike) -> None:
    """Refuse, before the work and not behind it, a directory that `save_pruned` would not replace.

    Raises:
        UsageError: it holds other things, is a file, or lies where nothing can be written.
    """
    require_replaceable(Path(directory), _marks(Path(directory)))
    require_folder_for(directory)


def _marks(directory: Path) -> tuple[str, ...]:
    """Names of the files that `save_pruned` writes."""
    safetensors = require("safetensors", "save weights")
    try:
        with safetensors.safe_open(directory / WEIGHTS, framework="pt") as weights:
            ours = "plan" in (weights.metadata() or {})
    except (OSError, safetensors.SafetensorError):
        ours = False
    return (WEIGHTS, PLAN) if ours else (PLAN,)


def own_memory(model: nn.Module) -> dict[str, torch.Tensor]:
    """safetensors refuses tensors that share memory: tied ones are written once per name."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}


def _read(path: Path) -> dict[str, torch.Tensor]:
    safetensors = require("safetensors", "load weights")
    torch_format = require("safetensors.torch", "load weights")
    try:
        weights: dict[str, torch.Tensor] = torch_format.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(
            f"cannot read {path} ({error})", allowed="a safetensors file", remedy="save it again"
        ) from None
    return weights
