"""Names of a bundle's files: they stay inside it, and mean one file each on every file system it may be copied to."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from eightfold.errors import BundleError
from eightfold.files import sha256_of_bytes

MANIFEST_NAME = "manifest.json"
# One line as `sha256sum` writes it, so that `sha256sum -c manifest.sha256` checks it without eightfold.
MANIFEST_DIGEST_NAME = "manifest.sha256"
SIGNATURE_NAME = "manifest.sig"
SUFFIX = ".eightfold"
# A hundred times what real ones take; the worst of this size is read in about a second.
MANIFEST_LIMIT_BYTES = 4 << 20
# What Linux's file systems hold; C++ counts the same bytes.
LONGEST_PART_BYTES = 255
LONGEST_NAME_BYTES = 1024


def manifest_digest_line(manifest: bytes) -> str:
    """The content of `manifest.sha256` for the bytes of a `manifest.json`. The writer of bundles calls this."""
    return f"{sha256_of_bytes(manifest)}  {MANIFEST_NAME}\n"


def check_names(names: Collection[str], bundle: Path) -> None:
    """Raise BundleError naming the first that is not safe. `bundle` stands in messages."""
    for name in names:
        if not _is_safe(name):
            raise _refusal(bundle, name, "relative paths with '/' that stay inside the bundle")
    for name in names:
        above = name
        while above := above.rpartition("/")[0]:
            if above in names:
                raise _refusal(bundle, name, f"names that are not below a file ({above!r})")
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(_lower(name), name)
        if twin != name:
            raise _refusal(bundle, name, f"names that differ in more than capitals ({twin!r})")


def _is_safe(name: str) -> bool:
    parts = name.split("/")
    return (
        "\\" not in name
        and ":" not in parts[0]  # a drive of Windows
        and not any(letter < " " or letter == "\x7f" for letter in name)
        and not any(part in ("", ".", "..") or len(part.encode()) > LONGEST_PART_BYTES for part in parts)
        and len(name.encode()) <= LONGEST_NAME_BYTES
    )


def _lower(name: str) -> str:
    """Of ASCII letters alone, so that every language agrees."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


def _refusal(bundle: Path, name: str, allowed: str) -> BundleError:
    return BundleError(
        f"{bundle}: the manifest names the file {name[:200]!r}",
        allowed=allowed,
        remedy="do not use this bundle; make it again",
    )
