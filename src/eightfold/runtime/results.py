"""What predictions are. Plain frozen data; `to_dict` is their JSON form."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ClassScore:
    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Classification:
    """The likeliest classes, best first."""

    top: tuple[ClassScore, ...]

    @property
    def index(self) -> int:
        return self.top[0].index

    @property
    def label(self) -> str:
        return self.top[0].label

    @property
    def probability(self) -> float:
        return self.top[0].probability

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "classification", **asdict(self)}

    def __str__(self) -> str:
        return ", ".join(f"{score.label} {score.probability:.1%}" for score in self.top)
