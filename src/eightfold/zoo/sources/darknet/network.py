"""The network of a cfg file as a torch module.

Layers lie in `layers` under their numbers as Darknet counts them. The layers of a residual block lie together in one
module (`layers.5-8`: layers 5 to 8), which is what makes it a block that pruning can take out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from eightfold.errors import ModelError
from eightfold.zoo.sources.darknet import convolutions, heads, joins
from eightfold.zoo.sources.darknet.built import Before, Builder, Built, DarknetLayer, Shape
from eightfold.zoo.sources.darknet.cfg import Cfg
from eightfold.zoo.sources.darknet.header import Header
from eightfold.zoo.sources.darknet.joins import Shortcut

Output = Tensor | tuple[Tensor, ...]
WEIGHTED: Mapping[str, Callable[..., Built]] = {
    "convolutional": convolutions.convolutional,
    "depthwise": convolutions.convolutional,
    "connected": convolutions.connected,
    "local": convolutions.local,
    "se": convolutions.squeeze_excite,
}
BUILDERS: Mapping[str, Builder] = {
    "maxpool": joins.maxpool,
    "avgpool": joins.avgpool,
    "upsample": joins.upsample,
    "reorg": joins.reorg,
    "reorg3d": joins.reorg,
    "route": joins.route,
    "shortcut": joins.shortcut,
    "scale_channels": joins.scale,
    "sam": joins.scale,
    "activation": joins.activation,
    "dropout": joins.dropout,
    "crop": joins.crop,
    "yolo": heads.yolo,
    "region": heads.region,
    "detection": heads.detection,
    "softmax": heads.softmax,
    "cost": heads.cost,
}
# A key of [net] that Darknet does not read: torch's epsilon in place of Darknet's formula.
EPSILON_KEY = "bn_epsilon"


class Stretch(nn.Module):
    """Layers `first` to `last`; they read each other, and layer `first - 1`, which is the input."""

    def __init__(self, layers: Sequence[Built], inner: Mapping[int, Stretch] | None = None) -> None:
        super().__init__()
        self.first, self.last = layers[0].section.index, layers[-1].section.index
        self.reads: dict[str, tuple[int, ...]] = {}
        self.ends: dict[str, int] = {}
        self.layers = nn.ModuleDict()
        for built in layers:
            stretch = (inner or {}).get(built.section.index)
            if stretch is not None:
                key = f"{stretch.first}-{stretch.last}"
                self.layers[key], self.reads[key], self.ends[key] = stretch, (stretch.first - 1,), stretch.last
            elif not any(part.first <= built.section.index < part.last for part in (inner or {}).values()):
                key = str(built.section.index)
                self.layers[key], self.reads[key], self.ends[key] = built.module, built.reads, built.section.index

    def outputs(self, x: Tensor) -> dict[int, Tensor]:
        """Output of every layer that is not inside an inner block, by number."""
        seen = {self.first - 1: x}
        for key, module in self.layers.items():
            seen[self.ends[key]] = module(*(seen[index] for index in self.reads[key]))
        return seen

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)[self.last]


class DarknetNetwork(Stretch):
    """The whole network. Its outputs are those of its heads, in order; without a head, that of the last layer.

    `forward` takes images [batch, channels, height, width], RGB from 0 to 1, and gives raw maps or logits.
    """

    def __init__(self, cfg: Cfg, layers: Sequence[Built], inner: Mapping[int, Stretch], size: Shape) -> None:
        super().__init__(layers, inner)
        self.cfg, self.size, self.header = cfg, size, Header()
        self.heads = tuple(built.section.index for built in layers if built.head) or (_last(layers),)
        self.shapes = tuple(built.shape for built in layers)

    def forward(self, x: Tensor) -> Output:  # type: ignore[override]  # a block has one output, a network may have more
        seen = self.outputs(x)
        found = tuple(seen[index] for index in self.heads)
        return found if len(found) > 1 else found[0]

    def activate(self, activated: bool = True) -> None:
        """Let heads give the outputs of Darknet's `network_predict` instead of raw values, or raw values again."""
        for module in self.modules():
            if isinstance(module, heads.Head):
                module.activated = activated

    def in_order(self) -> Iterator[tuple[int, nn.Module]]:
        """(number, module) of every layer; a removed block has the number of its last one."""
        yield from _in_order(self)


def build_network(cfg: Cfg) -> DarknetNetwork:
    """Build the network with random weights.

    Raises:
        ModelError: a layer that cannot be built, with its line.
    """
    size = _input_size(cfg)
    epsilon = cfg.net.number(EPSILON_KEY, 0) or None
    layers: list[Built] = []
    for section in cfg.layers:
        layers.append(_builder(section.name, epsilon)(section, Before(size, tuple(layers))))
    _take_sigmoids(layers)
    return DarknetNetwork(cfg, layers, {block.last: block for block in _blocks(layers)}, size)


def _builder(name: str, epsilon: float | None) -> Builder:
    return partial(WEIGHTED[name], epsilon=epsilon) if name in WEIGHTED else BUILDERS[name]


def _input_size(cfg: Cfg) -> Shape:
    channels, height, width = (cfg.net.integer(key, 0) for key in ("channels", "height", "width"))
    if not channels or not height or not width:
        raise cfg.net.error(
            f"an input of {width}x{height}, {channels} channels",
            allowed="width=, height= and channels= above 0",
            remedy="recurrent networks, which have inputs= instead, cannot be built here",
        )
    return channels, height, width


def _last(layers: Sequence[Built]) -> int:
    return next(built.section.index for built in reversed(layers) if built.section.name != "cost")


def _take_sigmoids(layers: Sequence[Built]) -> None:
    """Leave the sigmoid in front of a head with `new_coords` to the head, so that raw values are logits there too."""
    for before, built in pairwise(layers):
        if not isinstance(built.module, heads.Yolo) or not built.module.anchors.new_coords:
            continue
        ready = isinstance(before.module, convolutions.Convolution) and isinstance(before.module.activation, nn.Sigmoid)
        if not ready or any(before.section.index in other.reads for other in layers if other is not built):
            raise built.section.error(
                "new_coords behind a layer without activation=logistic, or read elsewhere too",
                key="new_coords",
                allowed="[convolutional] with activation=logistic before it",
            )
        before.module.activation = nn.Identity()


def _blocks(layers: Sequence[Built]) -> list[Stretch]:
    """Innermost residual blocks: layers between a shortcut and its source that nothing outside reads."""
    found: list[Stretch] = []
    for built in layers:
        module = built.module
        if not isinstance(module, Shortcut) or len(built.reads) != 2 or (module.alpha, module.beta) != (1, 1):
            continue
        first, last = built.reads[1] + 1, built.section.index
        if built.reads[1] < 0 or first >= last or layers[first - 1].shape != built.shape:
            continue
        if not any(block.last >= first for block in found) and _closed(layers, first, last):
            found.append(Stretch(layers[first : last + 1]))
    return found


def _closed(layers: Sequence[Built], first: int, last: int) -> bool:
    inside, after = layers[first : last + 1], layers[last + 1 :]
    return (
        not any(built.head for built in inside)
        and all(min(built.reads) >= first - 1 for built in inside)
        and not any(first <= index < last for built in after for index in built.reads)
    )


def _in_order(stretch: Stretch) -> Iterator[tuple[int, nn.Module]]:
    for key, module in stretch.layers.items():
        if isinstance(module, Stretch):
            yield from _in_order(module)
        else:
            yield stretch.ends[key], module


def layers_with_weights(network: DarknetNetwork) -> list[tuple[int, tuple[Tensor, ...]]]:
    """(number, tensors in the file's order) of every layer that a `.weights` file has values of.

    Raises:
        ModelError: a block was removed: such a network is written, not read.
    """
    found = []
    for index, module in network.in_order():
        if not isinstance(module, DarknetLayer):
            raise ModelError(f"layer {index} was removed", remedy="load the weights before pruning")
        if module.tensors():
            found.append((index, module.tensors()))
    return found
