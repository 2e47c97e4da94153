"""Reads a bundle: a directory or its `.eightfold` zip, with files verified against the manifest.

What is checked when: opening checks the manifest against `manifest.sha256` and, where a key is given, its signature,
then every name, kind and size; a file's digest is checked when it is first handed out, so that a predictor hashes only
what it loads, and a graph may refer to no file but the artifact's own; `verify()` checks all.
Digests find accidents and edits. They do not tell who made the bundle: whoever can replace a file can replace them too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from eightfold.errors import BundleError, IntegrityError
from eightfold.files import PathLike, sha256_of_bytes
from eightfold.runtime.bundle.bundle_names import (
    MANIFEST_DIGEST_NAME,
    MANIFEST_LIMIT_BYTES,
    MANIFEST_NAME,
    SIGNATURE_NAME,
    check_names,
)
from eightfold.runtime.bundle.bundle_store import Store, open_store
from eightfold.runtime.bundle.further_files import check_further_files
from eightfold.runtime.bundle.manifest import Artifact, Manifest
from eightfold.runtime.bundle.signature import check_signature


@dataclass(frozen=True, eq=False)
class Bundle:
    """A verified, read-only view of a bundle. Make one with `Bundle.open`.

    Attributes:
        path: what was opened.
        manifest: what is inside.
    """

    path: Path
    manifest: Manifest
    _store: Store = field(repr=False)
    _checked: dict[str, Path] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, path: PathLike, *, key: PathLike | None = None) -> Bundle:
        """Open a bundle directory or `.eightfold` file.

        Args:
            path: what to open.
            key: the public key (a PEM file, see `eightfold sign`) that must have signed it; None takes unsigned ones.

        Raises:
            BundleError: there is no bundle, or its manifest cannot be understood.
            IntegrityError: a file is missing, has another size, is a link, or the manifest was edited; or it was not
                signed with the key.
        """
        path = Path(path)
        store = open_store(path)
        data = _protected_manifest(store, path)
        if key is not None:
            check_signature(store, data, key)
        manifest = Manifest.from_json(_decoded(data, path), source=f"{path}: {MANIFEST_NAME}")
        _check_references(manifest, path)
        check_names(manifest.files, path)
        for name, entry in manifest.files.items():
            store.check_size(name, entry.bytes)
        return cls(path, manifest, store)

    def file(self, name: str) -> Path:
        """The path of one of the bundle's files, after its size and SHA-256 were checked (once).

        Raises IntegrityError naming the file when it is not what the manifest says.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(
                f"{self.path} holds no file {name!r}", allowed=", ".join(sorted(self.manifest.files)[:12])
            )
        with self._lock:
            if name not in self._checked:
                self._checked[name] = self._store.fetch(name, entry)
            return self._checked[name]

    def artifact_path(self, artifact: Artifact) -> Path:
        """The checked path of an artifact, whose further files are checked as well and lie beside it.

        Raises BundleError where a graph would have its backend read anything else.
        """
        for name in artifact.files:
            self.file(name)
        path = self.file(artifact.path)
        check_further_files(self.path, artifact, path, self.manifest.files)
        return path

    def document(self, role: str) -> Path | None:
        """The checked path of a document such as "latency" or "plan"; None where the bundle has none."""
        name = self.manifest.documents.get(role)
        return None if name is None else self.file(name)

    def artifact(self, id: str) -> Artifact:
        """The artifact of that id. Raises BundleError."""
        for artifact in self.manifest.artifacts:
            if artifact.id == id:
                return artifact
        known = ", ".join(artifact.id for artifact in self.manifest.artifacts)
        raise BundleError(f"{self.path} holds no artifact {id!r}", allowed=known)

    def verify(self) -> int:
        """Check every file's digest, and what each graph refers to. Returns how many files were checked.

        Raises IntegrityError or BundleError on the first that is not as it should be.
        """
        for name in self.manifest.files:
            self.file(name)
        for artifact in self.manifest.artifacts:
            self.artifact_path(artifact)
        return len(self.manifest.files)

    def unlisted(self) -> list[str]:
        """Names found beside the bundle's own files. They are never read."""
        own = {MANIFEST_NAME, MANIFEST_DIGEST_NAME, SIGNATURE_NAME, *self.manifest.files}
        return sorted(set(self._store.names()) - own)

    def describe(self) -> str:
        """Text for a person: the manifest's content."""
        return self.manifest.describe()


def _protected_manifest(store: Store, path: Path) -> bytes:
    data = store.read(MANIFEST_NAME, MANIFEST_LIMIT_BYTES)
    stated = store.read(MANIFEST_DIGEST_NAME, 1024).decode(errors="replace")
    if stated.split()[:1] != [sha256_of_bytes(data)]:
        raise IntegrityError(
            f"{path}: {MANIFEST_NAME} differs from the digest in {MANIFEST_DIGEST_NAME}",
            allowed="a manifest as it was written",
            remedy="copy the bundle again from where it was made, or make it again",
        )
    return data


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BundleError(f"{path}: {MANIFEST_NAME} is not UTF-8", allowed="a JSON manifest") from None


def _check_references(manifest: Manifest, path: Path) -> None:
    for name in _referenced(manifest):
        if name not in manifest.files:
            raise BundleError(
                f"{path}: the manifest refers to {name!r}, which is not among its files",
                allowed="names listed under 'files'",
                remedy="make the bundle again",
            )


def _referenced(manifest: Manifest) -> Iterable[str]:
    for artifact in manifest.artifacts:
        yield artifact.path
        yield from artifact.files
    yield from manifest.documents.values()
