"""Suppresses the log output of libraries."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def suppress_logs() -> Iterator[None]:
    """The exporters warn of every constant they fold and log whole stack traces; a failure is reported by us."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _suppressed(1):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _suppressed(stream: int) -> Iterator[None]:
    """Point a file descriptor at nothing: where it fails, the TorchScript exporter prints the whole graph from C++."""
    sys.stdout.flush()
    kept = os.dup(stream)
    try:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), stream)
        yield
    finally:
        os.dup2(kept, stream)
        os.close(kept)
