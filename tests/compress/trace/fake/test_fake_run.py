"""Fake operators against the operators themselves: the same shapes, strides, types and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map

from eightfold.compress.trace.fake.fake_ops import FAKE_OPS
from eightfold.compress.trace.fake.fake_run import FakeRun, run_or_fake
from eightfold.compress.trace.fake.uncomputed import Memory, fill, mark, memory_of

aten = torch.ops.aten


def maps(*shape: int, last: bool = False) -> Tensor:
    """A map as convolutions give it: dense, in either memory format."""
    format_ = torch.channels_last if last else torch.contiguous_format
    return torch.rand(*shape).to(memory_format=format_)


def unread(tensor: Tensor, positive: bool = False) -> Tensor:
    return mark(torch.full_like(tensor, torch.nan), Memory(positive))


def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, **options: Any) -> tuple[Any, ...]:
    """Arguments of aten.convolution."""
    lists = [list(options.get(name, (value,))) for name, value in (("stride", 1), ("padding", 1), ("dilation", 1))]
    more = list(options.get("output_padding", (0,)))
    return x, weight, bias, *lists, options.get("transposed", False), more, options.get("groups", 1)


torch.manual_seed(0)  # tests are seeded each for themselves; this is for what the module draws
X, LAST = maps(2, 8, 9, 7), maps(2, 8, 9, 7, last=True)
VECTORS = tuple(torch.rand(8) for _ in range(4))
QUERY = torch.rand(2, 5, 4, 8)
CASES: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "relu": (aten.relu.default, (X,), {}),
    "relu of a permuted map": (aten.relu.default, (X.permute(0, 2, 3, 1),), {}),
    "hardtanh": (aten.hardtanh.default, (X, 0.0, 6.0), {}),
    "add": (aten.add.Tensor, (X, maps(2, 8, 9, 7)), {"alpha": 2}),
    "add of two layouts": (aten.add.Tensor, (X, LAST), {}),
    "mul by a number": (aten.mul.Tensor, (X, 3.0), {}),
    "mul by a gate": (aten.mul.Tensor, (X, maps(2, 8, 1, 1)), {}),
    "gate mul": (aten.mul.Tensor, (maps(2, 8, 1, 1), X), {}),
    "mul by a vector": (aten.mul.Tensor, (X, torch.rand(7)), {}),
    "mul that grows both": (aten.mul.Tensor, (maps(2, 1, 9, 7), maps(1, 8, 9, 7)), {}),
    "convolution": (
        aten.convolution.default,
        conv(X, maps(16, 8, 3, 2), torch.rand(16), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        {},
    ),
    "convolution, channels last": (aten.convolution.default, conv(LAST, maps(16, 8, 3, 3)), {}),
    "depthwise": (aten.convolution.default, conv(X, maps(8, 1, 3, 3), groups=8), {}),
    "transposed": (
        aten.convolution.default,
        conv(X, maps(8, 4, 3, 3), VECTORS[0], stride=(2, 2), transposed=True, output_padding=(1, 0), groups=2),
        {},
    ),
    "convolution of a line": (aten.convolution.default, conv(maps(2, 8, 30), maps(4, 8, 5), stride=(3,)), {}),
    "mm": (aten.mm.default, (torch.rand(5, 6), torch.rand(6, 7)), {}),
    "bmm": (aten.bmm.default, (torch.rand(3, 5, 6), torch.rand(3, 6, 7)), {}),
    "addmm": (aten.addmm.default, (torch.rand(7), torch.rand(5, 6), torch.rand(6, 7)), {}),
    "batch norm": (aten.native_batch_norm.default, (X, *VECTORS, False, 0.1, 1e-5), {}),
    "batch norm, training": (aten.native_batch_norm.default, (X, None, None, None, None, True, 0.1, 1e-5), {}),
    "layer norm": (aten.native_layer_norm.default, (torch.rand(2, 5, 6), [5, 6], torch.rand(5, 6), None, 1e-5), {}),
    "max pool": (aten.max_pool2d_with_indices.default, (X, [3, 3], [2, 2], [1, 1]), {}),
    "max pool, ceil": (aten.max_pool2d_with_indices.default, (X, [3, 2], [2, 2], [0, 1], [1, 1], True), {}),
    "max pool without stride": (aten.max_pool2d_with_indices.default, (X, [2, 2]), {}),
    "average pool": (aten.avg_pool2d.default, (X, [2, 2], [2, 2], [0, 0], True, False), {}),
    "adaptive pool": (aten._adaptive_avg_pool2d.default, (X, [3, 2]), {}),
    "nearest": (aten.upsample_nearest2d.default, (X, [18, 14]), {}),
    "bilinear": (aten.upsample_bilinear2d.default, (X, [5, 20], False), {}),
    "mean": (aten.mean.dim, (X, [-1, -2], True), {}),
    "mean without the dimensions": (aten.mean.dim, (X, [2, 3]), {}),
    "cat": (aten.cat.default, ([X, maps(2, 3, 9, 7)], 1), {}),
    "cat along the last": (aten.cat.default, ([X, X, X], -1), {}),
    "pad": (aten.constant_pad_nd.default, (X, [1, 2, 0, 3], 0.0), {}),
    "clone": (aten.clone.default, (X.permute(0, 2, 3, 1),), {"memory_format": torch.contiguous_format}),
    "roll": (aten.roll.default, (X, [1, 2], [2, 3]), {}),
    "attention": (aten._scaled_dot_product_flash_attention_for_cpu.default, (QUERY, QUERY, QUERY), {}),
    "attention of transposed": (
        aten._scaled_dot_product_flash_attention_for_cpu.default,
        (QUERY.transpose(1, 2), QUERY.transpose(1, 2), QUERY.transpose(1, 2)),
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_fake_operator_gives_what_the_operator_gives_but_values(name: str) -> None:
    operator, args, kwargs = CASES[name]
    expected = [leaf for leaf in tree_leaves(operator(*args, **kwargs)) if isinstance(leaf, Tensor)]
    noise = tree_map(lambda leaf: unread(leaf) if isinstance(leaf, Tensor) else leaf, args)
    skimmed = FAKE_OPS[operator.overloadpacket.__name__](noise, kwargs)
    if name == "mul that grows both":
        assert skimmed is None
        return
    seen = [leaf for leaf in tree_leaves(skimmed) if isinstance(leaf, Tensor)]
    assert [(t.shape, t.dtype) for t in seen] == [(t.shape, t.dtype) for t in expected]
    assert seen[0].stride() == expected[0].stride()
    assert memory_of(seen[0]) is not None


MISFITS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "channels": (aten.convolution.default, conv(X, maps(16, 6, 3, 3))),
    "kernel": (aten.convolution.default, conv(X, maps(16, 8, 13, 13))),
    "bias": (aten.convolution.default, conv(X, maps(16, 8, 3, 3), VECTORS[0])),
    "groups": (aten.convolution.default, conv(X, maps(9, 4, 3, 3), groups=2)),
    "product": (aten.mm.default, (torch.rand(5, 6), torch.rand(7, 8))),
    "layer norm": (aten.native_layer_norm.default, (X, [9], torch.rand(9), None, 1e-5)),
    "add": (aten.add.Tensor, (X, maps(2, 7, 9, 7))),
    "add_": (aten.add_.Tensor, (maps(1, 8, 9, 7), X)),
    "cat": (aten.cat.default, ([X, maps(2, 8, 9, 8)], 1)),
    "pool": (aten.max_pool2d_with_indices.default, (X, [20, 20], [1, 1])),
}


@pytest.mark.parametrize("name", MISFITS)
def test_sizes_that_do_not_fit_still_raise(name: str) -> None:
    operator, args = MISFITS[name]
    first, *rest = args
    first = [unread(t) for t in first] if isinstance(first, list) else unread(first)
    with pytest.raises(RuntimeError):
        run_or_fake(operator, (first, *rest), {})


@pytest.mark.parametrize(
    ("known", "computed"),
    [
        (torch.rand(10, 4), True),
        (torch.rand(4), True),
        (torch.rand(1), False),
        (nn.Parameter(torch.rand(10, 4)), False),
    ],
)
def test_known_numbers_that_matter_are_not_lost(known: Tensor, computed: bool) -> None:
    deltas = unread(torch.rand(10, 4) if known.dim() > 1 else torch.rand(5, 4))
    moved = run_or_fake(aten.add.Tensor, (deltas, known), {})
    assert (memory_of(moved) is None) == computed
    if computed:
        assert torch.equal(moved, deltas + known)


def test_known_pieces_are_not_lost_in_a_concatenation() -> None:
    boxes, scores = torch.rand(10, 4), unread(torch.rand(10, 3))
    both = run_or_fake(aten.cat.default, ([boxes, scores], 1), {})
    assert torch.equal(both[:, :4], boxes)


def test_who_looks_sees_finite_noise_once() -> None:
    x = unread(maps(1, 300, 20, 20))
    top = run_or_fake(aten.slice.Tensor, (x, 1, 0, 100), {})
    assert memory_of(top) is memory_of(x)
    values = run_or_fake(aten.exp.default, (top,), {})
    assert values.isfinite().all()
    assert memory_of(x) is None
    assert x.isfinite().all()
    assert 0.9 < float(x.std()) < 1.1
    assert len(set(x.flatten().tolist())) > 60_000


def test_what_would_be_positive_is_positive() -> None:
    x = run_or_fake(aten.relu_.default, (unread(X),), {})
    root = run_or_fake(aten.sqrt.default, (x,), {})
    assert root.isfinite().all()


def test_small_products_of_known_numbers_are_computed() -> None:
    a, b = torch.rand(3, 4), torch.rand(4, 5)
    assert torch.equal(run_or_fake(aten.mm.default, (a, b), {}), a @ b)


def test_writing_into_unread_memory_keeps_what_was_written() -> None:
    x = unread(maps(2, 8))
    part = run_or_fake(aten.slice.Tensor, (x, 0, 0, 1), {})
    run_or_fake(aten.copy_.default, (part, torch.zeros(1, 8)), {})
    assert torch.equal(x[0], torch.zeros(8))
    assert x.isfinite().all()


class Reshaping(nn.Module):
    """Reads its own strides through `view`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 64, 3, padding=1), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.gelu(self.linear(self.conv(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return tokens.permute(0, 2, 3, 1).view(len(x), -1, 64)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "reshaping": Reshaping,
    "shufflenet": lambda: torchvision.models.shufflenet_v2_x0_5(weights=None),
    "convnext": lambda: torchvision.models.convnext_tiny(weights=None),
    "swin": lambda: torchvision.models.swin_t(weights=None),
    "vit": lambda: torchvision.models.VisionTransformer(96, 16, 2, 4, 64, 128),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_skimmed_model_gives_the_shapes_of_the_model(name: str) -> None:
    model, image = MODELS[name]().eval(), torch.rand(2, 3, 96, 96)
    shapes: dict[bool, list[torch.Size]] = {True: [], False: []}
    for skim in (True, False):
        hooks = [m.register_forward_hook(lambda m, i, o, s=skim: shapes[s].append(o.shape)) for m in model.modules()
                 if not isinstance(m, nn.MultiheadAttention)]  # fmt: skip
        with torch.no_grad():
            if skim:
                with FakeRun():
                    model(image)
            else:
                model(image)
        for hook in hooks:
            hook.remove()
    assert shapes[True] == shapes[False]


def test_filling_leaves_known_values_alone() -> None:
    x = torch.ones(3)
    fill([x])
    assert torch.equal(x, torch.ones(3))
