"""The header of `.weights` files: version and number of images seen in training.

Three int32 (major, minor, revision), then `seen`: int64 from version 0.2, int32 before. Versions above 1000 store
connected layers transposed (`load_weights_upto` in Darknet's parser.c).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Header:
    major: int = 0
    minor: int = 2
    revision: int = 0
    seen: int = 0

    @property
    def wide(self) -> bool:
        """True if `seen` has 64 bits."""
        return self.major * 10 + self.minor >= 2 and self.major < 1000 and self.minor < 1000

    @property
    def transposed(self) -> bool:
        return self.major > 1000 or self.minor > 1000

    def pack(self) -> bytes:
        return struct.pack("<3iq" if self.wide else "<4i", self.major, self.minor, self.revision, self.seen)
