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
SCALE_OF_CODE = "attention scales by the head width, which has to stay; in the file the scale is a constant"
ONE_WIDTH = "the module's code has one number for the head widths of query, key and value; in the file each has its own"
CUT = "the module's code computes the positions of a cut; in the file they are constants, which follow"
HEADS = "the trace takes the number of heads for the width of a head, which equals it; in the file they are apart"
COPIES = "two branches of the head begin as copies, whose equal weights the exporter merges"
MERGED = "the simplifier makes one convolution of parallel ones, so that fewer weights write each width"
STANDARDIZED = "the module standardizes its weights in each run; in the file they are constants"
PRODUCT = "the simplifier makes one product of query, key and value, whose equal parts keep equal channels"


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

    change_forward(model, CrossCovarianceAttn, {"reshape(B, N, C)": "reshape(B, N, -1)"})


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


def open_areas(model: nn.Module) -> None:
    from ultralytics.nn.modules.block import AAttn

    for module in instances(model, AAttn):
        module.fixed_scale = module.head_dim**-0.5
    change_forward(model, AAttn, {"self.head_dim**-0.5": "self.fixed_scale"})


def open_pyramid(model: nn.Module) -> None:
    from timm.models.pvt_v2 import Attention

    plain_attention(model)
    changes = {
        "reshape(B, -1, 2, self.num_heads, self.head_dim)": "reshape(B, x.shape[1], 2, self.num_heads, -1)",
        "reshape(B, N, C)": "reshape(B, N, -1)",
    }
    change_forward(model, Attention, changes)


def open_levit(model: nn.Module) -> None:
    from timm.models.levit import AttentionDownsample

    for module in instances(model, AttentionDownsample):
        module.num_heads = Count(module.num_heads)


def open_segformer(model: nn.Module) -> None:
    from transformers.models.segformer.modeling_segformer import SegformerAttention

    change_forward(model, SegformerAttention, {"-1, self.head_dim)": "self.num_attention_heads, -1)"})


def open_mobilevit(model: nn.Module) -> None:
    from transformers.models.mobilevit.modeling_mobilevit import MobileViTSelfAttention

    changes = {
        "-1, self.attention_head_size)": "self.num_attention_heads, -1)",
        "(self.all_head_size,)": "(-1,)",
    }
    change_forward(model, MobileViTSelfAttention, changes)


def open_pvt(model: nn.Module) -> None:
    from transformers.models.pvt_v2.modeling_pvt_v2 import PvtV2SelfAttention

    heads = {"(self.num_attention_heads, self.attention_head_size)": "(self.num_attention_heads, -1)"}
    change_method(model, PvtV2SelfAttention, "transpose_for_scores", heads)
    joined = {"transpose(1, 2).reshape(batch_size, seq_len, num_channels)": "transpose(1, 2).flatten(2)"}
    change_forward(model, PvtV2SelfAttention, joined)


def open_cvt(model: nn.Module) -> None:
    from transformers.models.cvt.modeling_cvt import CvtSelfAttention

    heads = {"self.num_heads, head_dim)": "self.num_heads, -1)"}
    change_method(model, CvtSelfAttention, "rearrange_for_multi_head_attention", heads)
    change_forward(model, CvtSelfAttention, {"self.num_heads * head_dim)": "-1)"})


def open_levit_of_transformers(model: nn.Module) -> None:
    from transformers.models.levit.modeling_levit import LevitAttention, LevitAttentionSubsample

    for kind in (LevitAttention, LevitAttentionSubsample):
        for module in instances(model, kind):
            module.value_dim = module.attention_ratio * module.key_dim
            module.num_attention_heads = Count(module.num_attention_heads)
        change_forward(model, kind, {"self.attention_ratio * self.key_dim": "self.value_dim"})


def open_focalnet(model: nn.Module) -> None:
    from transformers.models.focalnet.modeling_focalnet import FocalNetModulation

    for module in instances(model, FocalNetModulation):
        module.gates = module.focal_level + 1
    cut = {"(num_channels, num_channels, self.focal_level + 1)": "(self.dim, self.dim, self.gates)"}
    change_forward(model, FocalNetModulation, cut)


def one_product(model: nn.Module) -> None:
    """Query, key and value of transformers' Swin from one weight, which is cut in three."""
    from transformers.models.swin.modeling_swin import SwinAttention

    names = ("q_proj", "k_proj", "v_proj")
    for module in instances(model, SwinAttention):
        weights = [getattr(module, name).weight for name in names]
        module.merged = nn.Linear(weights[0].shape[1], 3 * weights[0].shape[0], bias=False)
        module.merged.weight.data = torch.cat([weight.data for weight in weights])
        for name in names:
            module.register_parameter(f"{name}_bias", getattr(module, name).bias)
            delattr(module, name)
    changes = {
        f"self.{name}(hidden_states)": f"(self.merged(hidden_states).chunk(3, -1)[{place}] + self.{name}_bias)"
        for place, name in enumerate(names)
    }
    change_forward(model, SwinAttention, changes)


def one_convolution(model: nn.Module) -> None:
    """Parallel convolutions of timm and Ultralytics as one."""
    for module in list(model.modules()):
        if hasattr(module, "reparameterize"):
            module.reparameterize()
        elif hasattr(module, "forward_fuse") and type(module).__name__ == "RepVGGDW":
            module.fuse()
            module.forward = module.forward_fuse


def tied_branches(model: nn.Module, branches: tuple[str, ...] = ("cv2", "cv3")) -> None:
    """One weight for the last convolutions of the branches of a detection head of Ultralytics, which are copies."""
    head = next(module for module in model.modules() if hasattr(module, "one2one_cv2"))
    for branch in branches:
        for first, second in zip(getattr(head, branch), getattr(head, f"one2one_{branch}"), strict=True):
            second[-1].weight = first[-1].weight


def tied_boxes(model: nn.Module) -> None:
    """The exporter itself merges weights of up to 1024 values: those of boxes, not those of classes."""
    tied_branches(model, ("cv2",))


def tied_and_merged(model: nn.Module) -> None:
    tied_branches(model)
    one_convolution(model)


def constant_standardization(model: nn.Module) -> None:
    """Weights of transformers' BiT, standardized once."""
    from transformers.models.bit.modeling_bit import WeightStandardizedConv2d

    for module in instances(model, WeightStandardizedConv2d):
        with torch.no_grad():
            flat = module.weight.flatten(1)
            spread = (flat.var(1, keepdim=True, unbiased=False) + module.eps).sqrt()
            module.weight.copy_(((flat - flat.mean(1, keepdim=True)) / spread).view_as(module.weight))
        module.forward = plain_convolution.__get__(module)


def plain_convolution(self: Any, x: torch.Tensor) -> Any:
    return self._conv_forward(x if self.pad is None else self.pad(x), self.weight, self.bias)


class Count(int):
    """A number of heads, which the trace does not take for a width of the same value."""


def instances(model: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kind)]


def change_forward(model: nn.Module, kind: type[nn.Module], changes: dict[str, str]) -> None:
    change_method(model, kind, "forward", changes)


def change_method(model: nn.Module, kind: type[nn.Module], name: str, changes: dict[str, str]) -> None:
    made = rewritten(getattr(kind, name), changes)
    for module in instances(model, kind):
        setattr(module, name, made.__get__(module))


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
    "timm:pvt_v2_b0": Reason("dynamo, raw", f"{SCALE}; {CODE}", open_pyramid),
    "timm:levit_128s": Reason("dynamo, raw", HEADS, open_levit),
    "timm:repvgg_a0": Reason("dynamo, simplified", MERGED, one_convolution),
    "yolov10n.yaml": Reason("dynamo, simplified", f"{COPIES}; {MERGED}", tied_and_merged),
    "yolo12n.yaml": Reason("torchscript, simplified", SCALE_OF_CODE, open_areas),
    "yolo26n.yaml": Reason("dynamo, raw", COPIES, tied_boxes),
    "hf:segformer": Reason("dynamo, simplified", ONE_WIDTH, open_segformer),
    "hf:swin": Reason("torchscript, simplified", PRODUCT, one_product),
    "hf:mobilevit": Reason("torchscript, raw", ONE_WIDTH, open_mobilevit),
    "hf:levit": Reason("dynamo, raw", f"{CUT}; {HEADS}", open_levit_of_transformers),
    "hf:bit": Reason("dynamo, simplified", STANDARDIZED, constant_standardization),
    "hf:cvt": Reason("torchscript, raw", ONE_WIDTH, open_cvt),
    "hf:focalnet": Reason("dynamo, raw", CUT, open_focalnet),
    "hf:pvt_v2": Reason("dynamo, raw", ONE_WIDTH, open_pvt),
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
