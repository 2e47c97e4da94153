"""Reasons of plans that differ between a module and its exported file, each proven by one change.

Usage: python benchmarks/onnx_plan_reasons.py [NAME ...] [--output FILE]

A reason is proven where the module, with the one change that takes the reason away, has the file's plan: the same
groups with the same kept counts (`onnx_pruning.compared`). Changes are made to the code of the libraries, in this
process only.
"""

from __future__ import annotations

import argparse
import inspect
import tempfile
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from onnx_exports import build_network, export
from onnx_pruning import compared
from torch import nn

import eightfold as ef

RESULT = Path(__file__).parent / "results" / "onnx_plan_reasons.md"
SCALE = "fused attention scales by the head width, which has to stay; in the file the scale is a constant"
CODE = "the module's code fixes a width that the file's Reshape states as a constant, which follows"


@dataclass(frozen=True)
class Reason:
    """Why a file's plan differs. `change` takes the reason away, in place."""

    form: str
    words: str
    change: Callable[[nn.Module], None]


def plain_attention(model: nn.Module) -> None:
    """Attention of timm as products, scaled by a number that was computed once."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False


def open_cross_covariance(model: nn.Module) -> None:
    from timm.models.edgenext import CrossCovarianceAttn

    forward = rewritten(CrossCovarianceAttn.forward, {"reshape(B, N, C)": "reshape(B, N, -1)"})
    for module in model.modules():
        if isinstance(module, CrossCovarianceAttn):
            module.forward = forward.__get__(module)


def open_windows(model: nn.Module) -> None:
    from torchvision.models import swin_transformer

    changes = {
        "num_heads, C // num_heads)": "num_heads, -1)",
        "reshape(x.size(0), x.size(1), C)": "reshape(x.size(0), x.size(1), -1)",
        "pad_W // window_size[1], window_size[0], window_size[1], C)": (
            "pad_W // window_size[1], window_size[0], window_size[1], x.size(-1))"
        ),
    }
    swin_transformer.shifted_window_attention = rewritten(swin_transformer.shifted_window_attention, changes)


def rewritten(function: Callable[..., Any], changes: dict[str, str]) -> Callable[..., Any]:
    """The function with parts of its source exchanged."""
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes.items():
        if old not in source:
            raise SystemExit(f"{function.__qualname__} has no {old!r} in this version of its library")
        source = source.replace(old, new)
    names: dict[str, Any] = {}
    exec(source, function.__globals__, names)
    made: Callable[..., Any] = names[function.__name__]
    return made


REASONS = {
    "timm:vit_tiny_patch16_224": Reason("dynamo, simplified", SCALE, plain_attention),
    "timm:deit_tiny_patch16_224": Reason("torchscript, raw", SCALE, plain_attention),
    "timm:mobilevit_xxs": Reason("torchscript, raw", SCALE, plain_attention),
    "timm:edgenext_xx_small": Reason("torchscript, simplified", CODE, open_cross_covariance),
    "swin_t": Reason("torchscript, simplified", CODE, open_windows),
}


def row(name: str, folder: Path) -> str:
    reason = REASONS[name]
    exporter, form = reason.form.split(", ")
    model, example = build_network(name)
    before = ef.plan_pruning(model, example)
    raw, simple = folder / "raw.onnx", folder / "simple.onnx"
    export(model, example, exporter, raw, simple if form == "simplified" else None)
    file = ef.plan_pruning(simple if form == "simplified" else raw)
    reason.change(model)
    after = ef.plan_pruning(model, example)
    return f"| {name} | {reason.form} | {compared(before, file)} | {compared(after, file)} | {reason.words} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=REASONS)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    lines = ["| network | file | plan | plan without the reason | reason |", "|---|---|---|---|---|"]
    for name in options.names:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(row(name, Path(folder)))
        print(lines[-1], flush=True)
    head = "# Reasons of plans that differ between module and file\n"
    options.output.write_text("\n".join([head, *lines, ""]))


if __name__ == "__main__":
    main()
