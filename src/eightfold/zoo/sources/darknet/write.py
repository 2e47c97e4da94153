"""Writes a network back as cfg and weights, pruned or not.

Widths come from the tensors. A residual block that was taken out leaves nothing; where it left a constant or an
activation, a 1x1 depthwise convolution or an [activation] takes its place. Layer numbers move accordingly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from eightfold.compress.surgery.blocks import Bypass
from eightfold.errors import ModelError, VerificationError
from eightfold.files import PathLike, atomic_path
from eightfold.zoo.sources.darknet.built import DarknetLayer
from eightfold.zoo.sources.darknet.cfg import Cfg, Option, Section, parse_cfg
from eightfold.zoo.sources.darknet.convolutions import Connected, Convolution, Local, SqueezeExcite
from eightfold.zoo.sources.darknet.network import DarknetNetwork, Stretch, build_network
from eightfold.zoo.sources.darknet.weights import load_darknet_weights, transposed, weights_bytes

REFERENCES = ("layers", "from")
# torch's names of what may follow a block's addition, and Darknet's.
BYPASS_ACTIVATIONS = {"": "linear", "leaky_relu_0.1": "leaky", "relu": "relu", "hardtanh": "relu6", "silu": "swish"}
# Relative to the largest output: the order of summation may differ between the two networks.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class _Written:
    """A section of the new file, the tensors behind it, and the number of the old layer whose output it gives."""

    section: Section
    tensors: tuple[Tensor, ...]
    ends: int


def write_pair(network: DarknetNetwork, stem: PathLike) -> tuple[Path, Path]:
    """Write `STEM.cfg` and `STEM.weights`, read them again, and compare.

    Raises:
        ModelError: a layer has a form that a cfg file cannot describe.
        VerificationError: the network that was read back gives other outputs; nothing is written.
    """
    cfg, tensors = described(network)
    paths = Path(f"{stem}.cfg"), Path(f"{stem}.weights")
    with atomic_path(paths[0]) as cfg_file, atomic_path(paths[1]) as weights_file:
        cfg_file.write_text(cfg.render(), encoding="utf-8")
        weights_file.write_bytes(weights_bytes(tensors, network.header, transposed(network)))
        _verify(network, replace(cfg, file=str(paths[0])), weights_file)
    return paths


def described(network: DarknetNetwork) -> tuple[Cfg, list[Tensor]]:
    """The cfg of the network as it is now, and its values in the order of a `.weights` file."""
    written = [part for key in network.layers for part in _stretch(network, network, key)]
    numbers = {-1: -1} | {part.ends: new for new, part in enumerate(written)}
    _add_removed(network, numbers)
    moved = len(written) != len(network.cfg.layers)
    sections = [_moved(network, part, numbers) if moved else part.section for part in written]
    text = Cfg(network.cfg.file, network.cfg.net, tuple(sections)).render()
    return parse_cfg(text, network.cfg.file), [tensor for part in written for tensor in part.tensors]


def _stretch(network: DarknetNetwork, stretch: Stretch, key: str) -> Iterator[_Written]:
    module = stretch.layers[key]
    if isinstance(module, Stretch):
        for inner in module.layers:
            yield from _stretch(network, module, inner)
    elif isinstance(module, Bypass):
        yield from _bypass(network, module, stretch.ends[key])
    elif isinstance(module, DarknetLayer):
        section = network.cfg.layers[stretch.ends[key]]
        yield _Written(_resized(section, module), module.tensors(), stretch.ends[key])


def _resized(section: Section, module: DarknetLayer) -> Section:
    if isinstance(module, Convolution):
        values = {"filters": module.operator.out_channels}
        if section.name == "convolutional" and module.operator.groups > 1:
            values["groups"] = module.operator.groups
        return section.with_values(**values)
    if isinstance(module, Connected):
        return section.with_values(output=module.operator.out_features)
    if isinstance(module, Local):
        return section.with_values(filters=module.bias.shape[0])
    return _squeezed(section, module) if isinstance(module, SqueezeExcite) else section


def _squeezed(section: Section, module: SqueezeExcite) -> Section:
    hidden, channels = module.squeeze.weight.shape
    reduction = next((number for number in range(1, channels + 1) if channels // number == hidden), 0)
    if not reduction:
        raise section.error(
            f"[se] with {channels} channels and {hidden} between its matrices",
            allowed="a whole reduction of the channels",
            remedy="keep it whole: --ignore '*squeeze*'",
        )
    values = {"reduction": reduction} | ({"filters": channels} if section.has("filters") else {})
    return section.with_values(**values)


def _bypass(network: DarknetNetwork, module: Bypass, ends: int) -> Iterator[_Written]:
    """Nothing for a block that left its input as it is."""
    activation = BYPASS_ACTIVATIONS.get(module.activation)
    last = network.cfg.layers[ends]
    if activation is None:
        raise ModelError(
            f"layer {ends}: {module.activation} behind a removed block", allowed="an activation of Darknet"
        )
    shift = module.shift.detach().flatten()
    if bool(shift.any()):
        options = [("filters", len(shift)), ("groups", len(shift)), ("size", 1), ("stride", 1)]
        section = replace(last, name="convolutional", options=_options(*options, ("activation", activation)))
        yield _Written(section, (shift, torch.ones(len(shift), 1, 1, 1)), ends)
    elif activation != "linear":
        yield _Written(replace(last, name="activation", options=_options(("activation", activation))), (), ends)


def _options(*pairs: tuple[str, str | int]) -> tuple[Option, ...]:
    return tuple(Option(key, str(value), 0) for key, value in pairs)


def _add_removed(stretch: Stretch, numbers: dict[int, int]) -> None:
    """The new number of what stands for a block that left nothing: the layer before it."""
    for key, module in stretch.layers.items():
        if isinstance(module, Stretch):
            _add_removed(module, numbers)
        numbers.setdefault(stretch.ends[key], numbers[stretch.reads[key][0]])


def _moved(network: DarknetNetwork, part: _Written, numbers: dict[int, int]) -> Section:
    """The section with the new numbers of the layers that it names, all of them absolute."""
    section = part.section
    for key in REFERENCES:
        if section.has(key) and section.options:
            old = [section.index + value if value < 0 else value for value in section.integers(key)]
            section = section.with_values(**{key: ",".join(str(numbers[index]) for index in old)})
    return section


def _verify(network: DarknetNetwork, cfg: Cfg, weights: Path) -> None:
    again = build_network(cfg)
    load_darknet_weights(again, weights)
    image = torch.rand(1, *network.size, generator=torch.Generator().manual_seed(0))
    training = network.training
    try:
        with torch.no_grad():
            pairs = list(zip(_outputs(network.eval(), image), _outputs(again.eval(), image), strict=True))
    finally:
        network.train(training)
    for before, after in pairs:
        error = float((before - after).abs().max()) if before.shape == after.shape else float("inf")
        if not error <= TOLERANCE * max(1.0, float(before.abs().max())):
            raise VerificationError(
                f"{cfg.file}: the network read back differs by {error:.2g} in its outputs",
                allowed=f"{TOLERANCE:g} of the largest output",
            )


def _outputs(network: DarknetNetwork, image: Tensor) -> Sequence[Tensor]:
    given = network(image.to(next(network.parameters()).device))
    return given if isinstance(given, tuple) else (given,)
