"""Layers without weights: route, shortcut, scale_channels, sam, pools, upsample, reorg, crop, dropout, activation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eightfold.zoo.sources.darknet.activations import activation_of
from eightfold.zoo.sources.darknet.built import Before, Built, DarknetLayer, in_sequence
from eightfold.zoo.sources.darknet.cfg import Section


class Route(DarknetLayer):
    """Concatenates layers, or one of `groups` equal parts of each."""

    def __init__(self, groups: int, group: int) -> None:
        super().__init__()
        self.groups, self.group = groups, group

    def forward(self, *inputs: Tensor) -> Tensor:
        parts = [x.chunk(self.groups, 1)[self.group] for x in inputs] if self.groups > 1 else list(inputs)
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


class Shortcut(DarknetLayer):
    """activation(alpha * x + beta * y) on the channels that both have; x passes alone where it has more.

    Of a y with a larger map, each `stride`-th position is taken (Darknet's `shortcut_cpu`).
    """

    def __init__(self, alpha: float, beta: float, stride: tuple[int, int], activation: nn.Module) -> None:
        super().__init__()
        self.alpha, self.beta, self.stride, self.activation = alpha, beta, stride, activation

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        for y in others:
            x = self._added(x, y)
        result: Tensor = self.activation(x)
        return result

    def _added(self, x: Tensor, y: Tensor) -> Tensor:
        if self.stride != (1, 1):
            y = y[:, :, :: self.stride[0], :: self.stride[1]]
        channels = min(x.shape[1], y.shape[1])
        if x.shape[1] == y.shape[1]:
            return _scaled(x, self.alpha) + _scaled(y, self.beta)
        both = _scaled(x[:, :channels], self.alpha) + _scaled(y[:, :channels], self.beta)
        return torch.cat((both, x[:, channels:]), 1) if x.shape[1] > channels else both


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x * factor


class Scale(DarknetLayer):
    """activation(x * y): `scale_channels` has one x for a channel, `sam` one for each value."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        result: Tensor = self.activation(x * y)
        return result


class MaxPool(DarknetLayer):
    """Windows that begin at -(padding // 2); positions outside the map do not count.

    torch pads both sides alike: where the padding is uneven, what begins too early is cut off (stride 1), or the last
    window may reach out (`ceil_mode`).
    """

    def __init__(self, size: int, stride: int, first: int, end: int, even: bool) -> None:
        super().__init__()
        self.cut = end - first if stride == 1 else 0
        padding = end if stride == 1 else first
        self.pool = nn.MaxPool2d(size, stride, padding, ceil_mode=not even)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(x)
        return y[:, :, self.cut :, self.cut :] if self.cut else y


class AveragePool(DarknetLayer):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class Upsample(DarknetLayer):
    def __init__(self, stride: int, scale: float) -> None:
        super().__init__()
        self.stride, self.scale = stride, scale

    def forward(self, x: Tensor) -> Tensor:
        return _scaled(F.interpolate(x, scale_factor=float(self.stride), mode="nearest"), self.scale)


class Reorg(DarknetLayer):
    """Space to depth. `[reorg]` reads its input as a map of fewer channels and larger sides, as Darknet's code does;
    `[reorg3d]` is the plain transformation."""

    def __init__(self, stride: int, reverse: bool, plain: bool) -> None:
        super().__init__()
        self.stride, self.reverse, self.plain = stride, reverse, plain

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        s = self.stride
        if self.reverse:
            parts = x.reshape(batch, s, s, channels // (s * s), height, width)
            return parts.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // (s * s), height * s, width * s)
        if self.plain:
            parts = x.reshape(batch, channels, height // s, s, width // s, s)
            return parts.permute(0, 3, 5, 1, 2, 4).reshape(batch, channels * s * s, height // s, width // s)
        parts = x.reshape(batch, channels // (s * s), height, s, width, s)
        return parts.permute(0, 3, 5, 1, 2, 4).reshape(batch, channels * s * s, height // s, width // s)


class Extra(DarknetLayer):
    """`[reorg] extra=n`: the flat input and n zeros behind it, such as the move "pass" of Go networks."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x.flatten(1), (0, self.extra))[:, :, None, None]


class Crop(DarknetLayer):
    """The centre, and x * 2 - 1 unless `noadjust`."""

    def __init__(self, height: int, width: int, adjust: bool) -> None:
        super().__init__()
        self.height, self.width, self.adjust = height, width, adjust

    def forward(self, x: Tensor) -> Tensor:
        top, left = (x.shape[2] - self.height) // 2, (x.shape[3] - self.width) // 2
        x = x[:, :, top : top + self.height, left : left + self.width]
        return x * 2 - 1 if self.adjust else x


class Wrapped(DarknetLayer):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.module(x)
        return result


def route(section: Section, before: Before) -> Built:
    reads = before.resolve(section, "layers")
    shapes = [before.shape(index) for index in reads]
    if len({shape[1:] for shape in shapes}) > 1:
        sizes = ", ".join(f"{index}: {w}x{h}" for index, (_, h, w) in zip(reads, shapes, strict=True))
        raise section.error(f"layers of different sizes ({sizes})", key="layers", allowed="layers of one size")
    groups, group = section.integer("groups", 1, least=1), section.integer("group_id", 0)
    if group >= groups or any(shape[0] % groups for shape in shapes):
        channels = ", ".join(str(shape[0]) for shape in shapes)
        raise section.error(
            f"group {group} of {groups} of {channels} channels",
            key="groups",
            allowed="groups that divide the channels, and a group_id below their number",
        )
    shape = (sum(shape[0] // groups for shape in shapes), *shapes[0][1:])
    return Built(section, Route(groups, group), reads, shape)


def shortcut(section: Section, before: Before) -> Built:
    if section.text("weights_type", "none") != "none":
        raise section.error("weighted shortcuts", key="weights_type", allowed="weights_type=none")
    reads, (channels, height, width) = before.resolve(section, "from"), before.previous
    strides = {_stride(section, before.shape(index), (height, width)) for index in reads}
    if len(strides) > 1:
        raise section.error("layers of different sizes", key="from", allowed="layers of one size")
    module = Shortcut(
        section.number("alpha", 1), section.number("beta", 1), strides.pop(), activation_of(section, "linear")
    )
    return Built(section, module, (before.last, *reads), (channels, height, width))


def _stride(section: Section, source: tuple[int, int, int], size: tuple[int, int]) -> tuple[int, int]:
    vertical, horizontal = source[1] // size[0], source[2] // size[1]
    if source[1] < size[0] or source[2] < size[1] or vertical != horizontal:
        raise section.error(
            f"a map of {source[2]}x{source[1]} added to one of {size[1]}x{size[0]}",
            key="from",
            allowed="a layer of the same size, or of a multiple of it",
        )
    return vertical, horizontal


def scale(section: Section, before: Before) -> Built:
    """`[scale_channels]` and `[sam]`."""
    if len(before.resolve(section, "from")) != 1:
        raise section.error(f"from={section.text('from', '')}", key="from", allowed="one layer")
    (source,) = before.resolve(section, "from")
    shape, (channels, height, width) = before.shape(source), before.previous
    wide = section.name == "sam" or bool(section.integer("scale_wh", 0))
    allowed = (shape[0] if section.name == "sam" else 1, *shape[1:]) if wide else (shape[0], 1, 1)
    if (channels, height, width) != allowed:
        raise section.error(
            f"factors of {channels}x{height}x{width} for layer {source} of {'x'.join(map(str, shape))}",
            key="from",
            allowed="x".join(map(str, allowed)),
        )
    return Built(section, Scale(activation_of(section, "linear")), (before.last, source), shape)


def maxpool(section: Section, before: Before) -> Built:
    channels, height, width = before.previous
    stride = section.integer("stride", 1, least=1)
    if section.integer("stride_x", stride) != stride or section.integer("stride_y", stride) != stride:
        raise section.error("[maxpool] with two strides", key="stride_x", allowed="one stride")
    size = section.integer("size", stride, least=1)
    padding = section.integer("padding", size - 1)
    high, wide = (height + padding - size) // stride + 1, (width + padding - size) // stride + 1
    first = padding // 2
    ends = {(out - 1) * stride + size - first - side for out, side in ((high, height), (wide, width))}
    fits = stride == 1 or all(
        -(-(side + 2 * first - size) // stride) + 1 == out for out, side in ((high, height), (wide, width))
    )
    even = all((side + 2 * first - size) // stride + 1 == out for out, side in ((high, height), (wide, width)))
    end = max(ends) if stride == 1 else first
    if padding >= size or end > size // 2 or not (fits or even):
        raise section.error(
            f"size={size}, stride={stride}, padding={padding} on {width}x{height}",
            allowed="padding below size, or none given",
        )
    return in_sequence(section, before, MaxPool(size, stride, first, end, even), (channels, high, wide))


def avgpool(section: Section, before: Before) -> Built:
    return in_sequence(section, before, AveragePool(), (before.previous[0], 1, 1))


def upsample(section: Section, before: Before) -> Built:
    channels, height, width = before.previous
    stride = section.integer("stride", 2, least=1)
    module = Upsample(stride, section.number("scale", 1))
    return in_sequence(section, before, module, (channels, height * stride, width * stride))


def reorg(section: Section, before: Before) -> Built:
    channels, height, width = before.previous
    extra = section.integer("extra", 0)
    if extra:
        return in_sequence(section, before, Extra(extra), (flat(before.previous) + extra, 1, 1))
    stride, reverse = section.integer("stride", 1, least=1), bool(section.integer("reverse", 0))
    square, plain = stride * stride, section.name == "reorg3d"
    fits = channels % square == 0 if reverse or not plain else True
    if not fits or (not reverse and (height % stride or width % stride)):
        raise section.error(
            f"stride={stride} on {channels}x{height}x{width}", key="stride", allowed="a stride that divides these"
        )
    shape = (
        (channels // square, height * stride, width * stride)
        if reverse
        else (channels * square, height // stride, width // stride)
    )
    return in_sequence(section, before, Reorg(stride, reverse, plain), shape)


def crop(section: Section, before: Before) -> Built:
    channels, height, width = before.previous
    high, wide = section.integer("crop_height", 1, least=1), section.integer("crop_width", 1, least=1)
    if high > height or wide > width:
        raise section.error(
            f"crop of {wide}x{high} from {width}x{height}", key="crop_height", allowed="at most the input"
        )
    module = Crop(high, wide, not section.integer("noadjust", 0))
    return in_sequence(section, before, module, (channels, high, wide))


def dropout(section: Section, before: Before) -> Built:
    probability = section.number("probability", 0.5)
    if not 0 <= probability < 1:
        raise section.error(f"probability={probability:g}", key="probability", allowed="0 or more, below 1")
    return in_sequence(section, before, Wrapped(nn.Dropout(probability)), before.previous)


def activation(section: Section, before: Before) -> Built:
    return in_sequence(section, before, Wrapped(activation_of(section, "linear")), before.previous)


def flat(shape: tuple[int, int, int]) -> int:
    """Values of an output."""
    return math.prod(shape)
