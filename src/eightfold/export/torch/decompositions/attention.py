"""Attention over other than four axes, which the newer exporter refuses, and the older one below opset 14."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """The rule of torch.nn.functional.scaled_dot_product_attention: Vaswani et al., 2017, equation 1."""
    import torch

    masks = is_causal or (attn_mask is not None and attn_mask.dtype == torch.bool)
    if query.dim() == 4 or dropout_p or enable_gqa or masks:
        return NotImplemented
    factor = 1 / math.sqrt(int(query.shape[-1])) if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)
    return torch.softmax(scores if attn_mask is None else scores + attn_mask, -1) @ value
