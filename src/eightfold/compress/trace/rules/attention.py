"""Fused attention. Heads are a batch dimension; the head width sets the scale of the scores."""

from __future__ import annotations

from eightfold.compress.trace.labels import Axes, axes_of, set_axes
from eightfold.compress.trace.rules.base import Call, rule


@rule(
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "scaled_dot_product_attention", "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_attention_math", "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)  # fmt: skip
def attention(call: Call) -> None:
    """query, key, value [..., tokens, width]: everything before the tokens is shared.

    Without a `scale` of its own, the operator divides by the root of the head width, which then must stay."""
    query, key, value = call.args[:3]
    last = query.dim() - 1
    axes: Axes = {}
    for dim in range(last - 1):
        found = [axes_of(t)[dim] for t in (query, key, value) if dim in axes_of(t)]
        for other in found[1:]:
            call.unite(found[0], other)
        if found and len(found) < 3:
            call.space.freeze(found[0], call.why("attention with heads of fixed number"))
        if found:
            axes[dim] = found[0]
    if call.kwargs.get("scale") is None:
        for tensor in (query, key):
            call.freeze(tensor, "the scale of attention follows the head width", [last])
    elif last in axes_of(query) or last in axes_of(key):
        call.join(axes_of(query).get(last), axes_of(key).get(last))
    for tensor in call.tensors:
        call.freeze(tensor, "attention over tokens", [tensor.dim() - 2])
    if last in axes_of(value):
        axes[last] = axes_of(value)[last]
    for mask in call.tensors[3:]:
        call.freeze(mask, "attention mask of fixed size")
    set_axes(call.out, axes)
