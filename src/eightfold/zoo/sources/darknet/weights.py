"""`.weights` files: header, then float32 values layer by layer, little-endian (`load_weights_upto` in parser.c)."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eightfold.errors import ModelError, why_unread
from eightfold.files import PathLike, write_bytes
from eightfold.zoo.sources.darknet.convolutions import Connected, SqueezeExcite
from eightfold.zoo.sources.darknet.header import Header
from eightfold.zoo.sources.darknet.network import DarknetNetwork, layers_with_weights

CUTOFF = re.compile(r"\.conv\.(\d+)$")


@dataclass(frozen=True)
class Loaded:
    """Result of reading a file: `layers` of `of` layers with weights; the others keep their random values."""

    layers: int
    of: int
    origin: str


def load_darknet_weights(network: DarknetNetwork, path: PathLike) -> Loaded:
    """Read a `.weights` file into `network`, in place.

    A file named `NAME.conv.N` holds layers 0 to N - 1 only, as `darknet partial` writes it; the rest stays random.

    Raises:
        ModelError: the file cannot be read, or holds more or fewer values than the network; the network is as it was.
    """
    header, values = read_weights(path)
    layers = layers_with_weights(network)
    cutoff = CUTOFF.search(Path(path).name)
    used = [layer for layer in layers if cutoff is None or layer[0] < int(cutoff[1])]
    excited = {
        id(tensor) for module in network.modules() if isinstance(module, SqueezeExcite) for tensor in module.tensors()
    }
    origin = f"layers 0 to {int(cutoff[1]) - 1} from {path}, the rest random" if cutoff else f"weights from {path}"
    if len(values) != _count(used) and excited:
        plain = [(index, tensors) for index, tensors in used if id(tensors[0]) not in excited]
        if len(values) == _count(plain):  # the code that has [se] does not write it
            used, origin = plain, f"{origin}; it has no values for [se], which are random"
    if len(values) != _count(used):
        raise _wrong_count(path, network, len(values), layers, _count(used))
    network.header = header
    _copy(values, [tensor for _, tensors in used for tensor in tensors], transposed(network))
    return Loaded(len(used), len(layers), origin)


def read_weights(path: PathLike) -> tuple[Header, np.ndarray[tuple[int], np.dtype[np.float32]]]:
    """Header and values [n]."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {why_unread(error)}", allowed="a Darknet .weights file") from None
    if len(data) < 16:
        raise ModelError(f"{path} has {len(data)} bytes", allowed="a header of 16 or 20 bytes, then float32 values")
    header = Header(*struct.unpack_from("<3i", data))
    start = 20 if header.wide else 16
    if (len(data) - start) % 4 or len(data) < start:
        raise ModelError(
            f"{path} has {len(data):,} bytes: no whole number of float32 values after a header of {start}",
            allowed="a Darknet .weights file",
            remedy="copy it again",
        )
    (seen,) = struct.unpack_from("<q" if header.wide else "<i", data, 12)
    values = np.frombuffer(data, "<f4", offset=start).astype(np.float32, copy=False)
    return Header(header.major, header.minor, header.revision, seen), values


def weights_bytes(tensors: Sequence[Tensor], header: Header, turned: frozenset[int] = frozenset()) -> bytes:
    """A `.weights` file of these tensors; those whose id is in `turned` are written transposed."""
    arrays = [(tensor.T if id(tensor) in turned else tensor).detach().cpu().float() for tensor in tensors]
    return header.pack() + b"".join(array.contiguous().numpy().astype("<f4").tobytes() for array in arrays)


def save_weights(network: DarknetNetwork, path: PathLike) -> None:
    """Write all weights of a network from which no block was removed (else `write_pair`)."""
    tensors = [tensor for _, layer in layers_with_weights(network) for tensor in layer]
    write_bytes(path, weights_bytes(tensors, network.header, transposed(network)))


def transposed(network: DarknetNetwork) -> frozenset[int]:
    """The ids of the weights that files of the network's version hold transposed."""
    if not network.header.transposed:
        return frozenset()
    return frozenset(id(module.operator.weight) for module in network.modules() if isinstance(module, Connected))


def _count(layers: Sequence[tuple[int, Sequence[Tensor]]]) -> int:
    return sum(tensor.numel() for _, tensors in layers for tensor in tensors)


def _copy(
    values: np.ndarray[tuple[int], np.dtype[np.float32]], tensors: Sequence[Tensor], turned: frozenset[int]
) -> None:
    start = 0
    with torch.no_grad():
        for tensor in tensors:
            part = torch.from_numpy(values[start : start + tensor.numel()].copy())
            shape = tensor.shape[::-1] if id(tensor) in turned else tensor.shape
            part = part.reshape(shape)
            tensor.copy_(part.T if id(tensor) in turned else part)
            start += tensor.numel()


def _wrong_count(
    path: PathLike, network: DarknetNetwork, seen: int, layers: Sequence[tuple[int, Sequence[Tensor]]], wanted: int
) -> ModelError:
    remedy, total = "name the cfg that these weights were trained with", 0
    for index, tensors in layers:
        total += sum(tensor.numel() for tensor in tensors)
        if total == seen < wanted:
            remedy = f"they end exactly behind layer {index}: rename a cutoff file to NAME.conv.{index + 1}"
    return ModelError(
        f"{path} holds {seen:,} values",
        allowed=f"{wanted:,}, as {network.cfg.file} describes",
        remedy=remedy,
    )
