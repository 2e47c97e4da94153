"""The base of all decoders. Definitions: docs/decoders.md, which the C++ runtime implements as well."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.geometry import Placement
from eightfold.errors import BundleError
from eightfold.runtime.bundle.manifest import TaskKind
from eightfold.runtime.postprocess.results import Result
from eightfold.values import Frozen


class Decoder(Frozen):
    """Turns outputs into answers. Its fields are the options that a bundle may give it.

    Attributes:
        kind: of the tasks whose answers it gives.
    """

    kind: ClassVar[TaskKind] = "tensors"
    labels: tuple[str, ...] = ()

    @abstractmethod
    def __call__(self, outputs: Arrays, placements: Sequence[Placement]) -> Sequence[Result]:
        """Decode one batch.

        Args:
            outputs: name -> array with a leading batch axis; nothing of it may be kept.
            placements: how each image lies in the tensor; fewer than rows when the batch is padded.
        """


def the_output(outputs: Arrays, name: str = "") -> Array:
    """The output of that name, or the only one there is; as float32."""
    if not name and len(outputs) == 1:
        (array,) = outputs.values()
    elif name in outputs:
        array = outputs[name]
    else:
        raise BundleError(
            f"the decoder wants output {name!r}" if name else f"{len(outputs)} outputs where the decoder wants one",
            allowed=", ".join(outputs),
            remedy="name the outputs in the task's options",
        )
    return as_float32(array)


def as_float32(array: Array) -> Array:
    """`array` in float32; itself if it is."""
    return array if array.dtype == np.float32 else array.astype(np.float32)


def wrong_shape(name: str, array: Array, wanted: str) -> BundleError:
    """The error for an output of another shape than the decoder reads."""
    return BundleError(f"output {name} has shape {array.shape}", allowed=wanted, remedy="choose another decoder")
