"""Values known before any image is seen: constants, shapes, and what is computed from them. They stay apart from the
tensors of the network, and remember which number of which constant they are, so that a width can be changed there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Longer constants are no lists of sizes.
LONGEST_FOLLOWED = 64
NOWHERE = -1
_PLACES = 1 << 16


@dataclass(frozen=True)
class Host:
    """
    Attributes:
        tensor: the values.
        origins: int64 of the same shape: `origin_code` of the constant's entry that each value is; NOWHERE for values
            that were computed. None where nothing is followed.
    """

    tensor: Tensor
    origins: Tensor | None = None

    @classmethod
    def of_constant(cls, number: int, tensor: Tensor) -> Host:
        """A constant of the graph, whose entries can be followed when they may be sizes."""
        if tensor.dtype not in (torch.int64, torch.int32) or tensor.numel() > LONGEST_FOLLOWED:
            return cls(tensor)
        codes = torch.arange(tensor.numel()) + number * _PLACES
        return cls(tensor, codes.reshape(tensor.shape))

    def codes(self) -> Tensor:
        """`origins`, NOWHERE where nothing is followed."""
        return torch.full(self.tensor.shape, NOWHERE) if self.origins is None else self.origins


def constant_and_place(code: int) -> tuple[int, int]:
    """Number of the constant, and the place in it, of an origin's code.

    >>> constant_and_place(3 * 65536 + 2)
    (3, 2)
    """
    return divmod(code, _PLACES)


Value = Tensor | Host | None


def tensor_of(value: Value) -> Tensor:
    """The tensor of a value that is there."""
    assert value is not None, "every output has a value"
    return value.tensor if isinstance(value, Host) else value
