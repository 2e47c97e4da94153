"""The ONNX executor against the ONNX project's backend tests, and what it refuses.

Usage: python benchmarks/onnx_executor.py [--output FILE]
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx_cases import Case, backend_cases

from eightfold.compress.onnx.build import build_module
from eightfold.errors import EightfoldError
from eightfold.onnx_graph.canonicalize import canonicalized

RESULT = Path(__file__).parent / "results" / "onnx_executor.md"


def verdict(case: Case) -> str:
    """ "right", "refused: OPERATOR", "no tensors", or what differs."""
    if not all(isinstance(value, np.ndarray) and value.dtype.kind in "fiub" for value in case.feeds.values()):
        return "no tensors that torch has"
    try:
        module = build_module(canonicalized(copy.deepcopy(case.model)), Path())
        with torch.no_grad():
            seen = module(**{name: torch.from_numpy(array.copy()) for name, array in case.feeds.items()})
    except EightfoldError as error:
        return f"refused: {error.seen.split(' of node')[0][:80]}"
    except Exception as error:  # whatever it is, it is what this program looks for
        return f"crashed: {type(error).__name__} {str(error)[:80]}"
    outputs = seen if isinstance(seen, tuple) else (seen,)
    alike = (_alike(a, b, case) for a, b in zip(outputs, case.expected, strict=False))
    return "right" if all(alike) else "another answer"


def _alike(seen: torch.Tensor, known: Any, case: Case) -> bool:
    if not isinstance(known, np.ndarray) or known.dtype.kind not in "fiub" or tuple(seen.shape) != known.shape:
        return False
    same_type = seen.dtype == torch.bfloat16 or seen.numpy().dtype == known.dtype
    values = seen.double().numpy(), known.astype(np.float64)
    return same_type and bool(np.allclose(*values, case.rtol, max(case.atol, 1e-6), equal_nan=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = {case.name: verdict(case) for case in backend_cases()}
    counts = Counter(words.split(":")[0] for words in found.values())
    refused = Counter(words for words in found.values() if words.startswith("refused"))
    wrong = {name: words for name, words in found.items() if words.startswith(("another", "crashed"))}
    lines = [
        "# The ONNX executor on the ONNX project's backend tests",
        "",
        f"{len(found)} models; onnx {onnx.__version__}, torch {torch.__version__}.",
        "",
        *(f"- {words}: {count}" for words, count in counts.most_common()),
        "",
        "## Other answers",
        "",
        *(f"- {name}: {words}" for name, words in wrong.items()),
        "",
        "## Refused",
        "",
        *(f"- {words.removeprefix('refused: ')}: {count}" for words, count in refused.most_common()),
        "",
    ]
    options.output.write_text("\n".join(lines))
    print(counts, *wrong.items(), sep="\n")


if __name__ == "__main__":
    main()
