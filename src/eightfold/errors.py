"""Every error that eightfold raises for a reason its user can act on, as one family.

    EightfoldError                  exit code 1
    ├── UsageError                  exit code 2: the command, a recipe or an argument is wrong
    │   ├── RecipeError             a recipe's key or value
    │   └── UnknownNameError        a model, target, score, ... that is not in its registry
    ├── MissingExtraError           an optional dependency is not installed
    ├── BrokenExtraError            an optional dependency is installed, and cannot be imported
    ├── ImageError                  an image or a set of images cannot be used
    ├── ModelError                  a model or model file cannot be used
    │   ├── TraceError              the channel trace cannot follow the model
    │   └── PlanMismatchError       a pruning plan does not fit the architecture
    ├── CalibrationError            ranges cannot be computed or do not belong to the graph
    ├── VerificationError           a step changed the model's answer beyond its tolerance
    ├── BuildError                  an engine builder refused the model
    ├── BundleError                 a bundle cannot be read
    │   └── IntegrityError          a file of it differs from what the manifest says
    └── BackendError                a backend is absent, or failed while it ran

A message is one line that says what was seen, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

Name = TypeVar("Name", bound=str)
# The folders of `eightfold.scratch`: files there have names, but their paths tell a user nothing.
SCRATCH_PATH = re.compile(r"(?:/[^\s/'\"]+)*/eightfold-scratch-[^\s/]+/")

# onnxruntime puts its own name, and the place in its code, before the reason.
CODE_PLACE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |/\S+\.(?:h|cc|cpp|cu):\d+ [^()]*\([^()]*\)(?: const)? ")


class EightfoldError(Exception):
    """Base of the family. `str()` of it is the one line that the command line prints.

    Args:
        seen: what was found, with the name of the thing at fault.
        allowed: what would have been accepted.
        remedy: what the user should do next.
    """

    exit_code = 1

    def __init__(self, seen: str, *, allowed: str = "", remedy: str = "") -> None:
        seen, allowed, remedy = (SCRATCH_PATH.sub("", text) for text in (seen, allowed, remedy))
        self.seen, self.allowed, self.remedy = seen, allowed, remedy
        parts = [seen.rstrip("."), f"allowed: {allowed}" if allowed else "", remedy]
        super().__init__("; ".join(" ".join(part.split()) for part in parts if part))


class UsageError(EightfoldError):
    """The call is wrong; exit code 2."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe cannot be read, or a key of it is wrong."""

    pass


class UnknownNameError(UsageError):
    """A name that is not in a registry.

    >>> str(UnknownNameError.of("score", "l3", ["l1", "l2"]))
    "unknown score 'l3'; allowed: l1, l2; did you mean 'l1'?"
    """

    @classmethod
    def of(cls, kind: str, seen: str, known: Iterable[str]) -> UnknownNameError:
        """The error for a name that is not among the known ones, with the closest one."""
        names = sorted(known)
        close = difflib.get_close_matches(seen, names, n=1)
        shown = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
        return cls(
            f"unknown {kind} {seen!r}",
            allowed=shown,
            remedy=f"did you mean {close[0]!r}?" if close else "choose one from that list",
        )


def one_of(kind: str, name: str, known: Sequence[Name]) -> Name:
    """The member of `known` that `name` is, with the type it has there.

    Raises:
        UnknownNameError: `name` is none of them.

    >>> one_of("score", "l2", ["l1", "l2"])
    'l2'
    """
    for each in known:
        if each == name:
            return each
    raise UnknownNameError.of(kind, name, known)


class MissingExtraError(EightfoldError):
    """A package is not installed; the message holds the pip command."""

    pass


class BrokenExtraError(EightfoldError):
    """A package is installed but fails to import."""

    pass


class ImageError(EightfoldError):
    """An image, or a set of images, cannot be read."""

    pass


class ModelError(EightfoldError):
    """A network cannot be loaded, run or converted."""

    pass


class TraceError(ModelError):
    """A network cannot be traced."""

    pass


class PlanMismatchError(ModelError):
    """A plan does not fit the network."""

    pass


class CalibrationError(EightfoldError):
    """A graph cannot be calibrated, or ranges do not fit it."""

    pass


class VerificationError(EightfoldError):
    """A step changed the answer beyond its tolerance."""

    pass


class BuildError(EightfoldError):
    """A builder refused a graph."""

    pass


class BundleError(EightfoldError):
    """A bundle cannot be read, or is not valid."""

    pass


class IntegrityError(BundleError):
    """A bundle's file differs from its manifest, or a signature does not hold."""

    pass


class BackendError(EightfoldError):
    """A back end is missing or failed."""

    pass


def first_line(error: BaseException) -> str:
    """First line of a library's message, without places in its code; the error's type if the message is empty.

    >>> first_line(RuntimeError("[ONNXRuntimeError] : 1 : FAIL : In Add: /src/a.h:9 void Add(int) const sizes differ"))
    'In Add: sizes differ'
    """
    return CODE_PLACE.sub("", _lines(error)[0])[:300]


def why_unread(error: OSError | UnicodeDecodeError) -> str:
    """Reason for a failure to read a text file, as words that follow its name.

    >>> why_unread(FileNotFoundError(2, "No such file or directory", "notes.txt"))
    'No such file or directory'
    """
    if isinstance(error, UnicodeDecodeError):
        return "it is no text in UTF-8"
    return error.strerror or first_line(error)


def last_line(error: BaseException) -> str:
    """The last one: OpenVINO's messages begin with where they were raised and end with the reason."""
    return _lines(error)[-1][:300]


def _lines(error: BaseException) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
