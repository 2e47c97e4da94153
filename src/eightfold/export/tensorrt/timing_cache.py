"""Kernel times measured by earlier builds, kept in a file. A cache of another device or version is left unused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.files import write_bytes

if TYPE_CHECKING:
    from tensorrt import IBuilderConfig, ITimingCache


def use_timing_cache(config: IBuilderConfig, path: Path) -> None:
    """Give a config the cache in `path`; an empty one where there is none, or where the builder refuses it."""
    cache = _stored(config, path)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def save_timing_cache(config: IBuilderConfig, path: Path) -> None:
    """Write what the build knows now, merged with what another build may have written meanwhile."""
    cache = config.get_timing_cache()
    stored = _stored(config, path)
    if stored is not None:
        # False where the stored one is of another device or version: ours replaces it.
        cache.combine(stored, ignore_mismatch=False)
    write_bytes(path, bytes(cache.serialize()))


def _stored(config: IBuilderConfig, path: Path) -> ITimingCache | None:
    """None for no file, and where TensorRT cannot read it: types do not know that."""
    return config.create_timing_cache(path.read_bytes()) if path.is_file() else None


def timing_cache_path(path: Path, builder: str, version: str, device: str) -> Path:
    """The file for one builder, version and device beside `path`: caches of different ones do not mix.

    >>> cache_path(Path("times.cache"), "tensorrt", "10.3.0", "Orin Nano").name
    'times.tensorrt-10.3.0-Orin-Nano.cache'
    """
    key = "-".join(part for part in (builder, version, *re.findall(r"[\w.]+", device)) if part)
    return path.with_name(f"{path.stem}.{key}{path.suffix}")
