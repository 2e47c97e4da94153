"""Collects the messages of a TensorRT parser and builder instead of printing them."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorrt import ILogger

KEPT = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO")


def collecting_logger(trt: ModuleType, messages: list[str]) -> ILogger:
    """A `trt.ILogger` that appends "SEVERITY: text" to `messages`, details left out."""

    class Collector(trt.ILogger):  # type: ignore[misc,name-defined]  # the base class is known at run time only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity.name in KEPT and not message.startswith("----"):
                messages.append(f"{severity.name}: {' '.join(message.split())}")

    logger: ILogger = Collector()
    return logger


def first_error(messages: list[str]) -> str:
    """The first error message, or "no message"."""
    return next((text for text in messages if "ERROR" in text.partition(":")[0]), "no message")
