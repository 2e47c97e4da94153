"""`load.py` of a pruned folder: rebuilds the pruned network with torch and safetensors only."""

from __future__ import annotations

import json
from typing import Any

from torch import nn

from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.surgery.blocks import Bypass

LOADER, SIZES = "load.py", "sizes.json"

LOADER_CODE = '''\
"""Loads the pruned network in this folder. Needs torch and safetensors only.

    from load import load
    model = load(MyNet())   # the architecture before pruning, from your own code
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

HERE = Path(__file__).parent


class Bypass(nn.Module):
    """What a removed residual block leaves: act(x + shift)."""

    def __init__(self, activation, shape):
        super().__init__()
        self.activation, self.shift = activation, nn.Parameter(torch.zeros(shape))

    def forward(self, x):
        x = x + self.shift
        return getattr(functional, self.activation)(x) if self.activation else x


def load(model):
    """Give `model`, in place, the pruned shapes and weights; returns it in evaluation mode."""
    sizes, weights = json.loads((HERE / "sizes.json").read_text()), load_file(HERE / "weights.safetensors")
    for path, activation, shape in sizes["removed_blocks"]:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, Bypass(activation, shape))
    for path, values in sizes["attributes"].items():
        module = model.get_submodule(path)
        for name, value in values.items():
            before = getattr(module, name)
            setattr(module, name, type(before)(value) if isinstance(before, (list, tuple)) else value)
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    for name, tensor in weights.items():
        if name not in tensors:
            raise KeyError(f"the model has no tensor {name!r}: pass the architecture that was pruned")
        tensors[name].data = tensor.to(tensors[name].device)
    missing = set(model.state_dict()) - set(weights)
    if missing:
        raise KeyError(f"the file has no tensor {min(missing)!r}: pass the architecture that was pruned")
    return model.eval()
'''
# Names of `torch.nn.functional` for the activations of removed blocks.
_FUNCTIONS = {"hardtanh": "relu6"}


def sizes_json(model: nn.Module, plan: PrunePlan) -> str:
    """The sizes that the modules of a pruned `model` hold beside their tensors, and its removed blocks."""
    owners = {member.tensor.rpartition(".")[0] for group in plan.groups for member in group.members}
    owners |= {link.module for link in plan.sizes}
    attributes = {path: _integers(model.get_submodule(path)) for path in sorted(owners)}
    bypasses = {path: module for path, module in model.named_modules() if isinstance(module, Bypass)}
    blocks = [
        [path, _FUNCTIONS.get(module.activation, module.activation), list(module.shift.shape)]
        for path, module in bypasses.items()
    ]
    content = {"attributes": {path: held for path, held in attributes.items() if held}, "removed_blocks": blocks}
    return json.dumps(content, indent=1) + "\n"


def _integers(module: nn.Module) -> dict[str, Any]:
    """Public attributes that are whole numbers, or lists and tuples of them."""
    return {
        name: held
        for name, held in vars(module).items()
        if not name.startswith("_")
        and (type(held) is int or (isinstance(held, list | tuple) and held and all(type(each) is int for each in held)))
    }
