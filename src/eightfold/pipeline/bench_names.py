"""Names of the subjects of a benchmark that tell them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath


def distinct_names(subjects: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that are all different; what is named twice gets a number.

    >>> distinct_names(["before/model.onnx", "after/model.onnx"])
    ['before/model.onnx', 'after/model.onnx']
    >>> distinct_names(["/runs/a/net.onnx", "/runs/b/other.onnx", "nets:net"])
    ['net.onnx', 'other.onnx', 'nets:net']
    >>> distinct_names(["net.onnx", "net.onnx"])
    ['net.onnx', 'net.onnx (2)']
    """
    parts = [PurePath(subject).parts for subject in subjects]
    longest = max(map(len, parts), default=0)
    ends = [["/".join(each[-count:]).replace("//", "/") for each in parts] for count in range(1, longest + 1)]
    wanted = len(set(parts))
    names = next((each for each in ends if len(set(each)) == wanted), list(subjects))
    seen: Counter[str] = Counter()
    for place, name in enumerate(names):
        seen[name] += 1
        names[place] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return names
