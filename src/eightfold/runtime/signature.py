"""Who made a bundle: an Ed25519 signature (RFC 8032) of its manifest, which in turn names the digest of every file.

Digests find accidents; a signature tells whether the holder of a key made the bundle. `manifest.sig` is one JSON line.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.errors import BundleError, IntegrityError, UsageError
from eightfold.extras import require
from eightfold.files import PathLike, write_bytes, write_text
from eightfold.runtime.bundle import MANIFEST_NAME, Bundle
from eightfold.runtime.bundle_store import open_store

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_NAME = "manifest.sig"
ALGORITHM = "ed25519"
KEY_BYTES = 32
SIGNATURE_LIMIT_BYTES = 4096
MANIFEST_LIMIT_BYTES = 64 << 20


def new_key(path: PathLike) -> Path:
    """Write a new private key to `path` (64 hex digits, readable by you alone) and its public key to `<path>.pub`.

    Raises UsageError where `path` exists: a key is never replaced.
    """
    path = Path(path)
    require("cryptography", "sign bundles")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(key.private_bytes_raw().hex() + "\n")
    except FileExistsError:
        raise UsageError(f"{path} exists", allowed="a new file", remedy="sign with that key, or name another") from None
    public = path.with_name(path.name + ".pub")
    write_text(public, key.public_key().public_bytes_raw().hex() + "\n")
    return public


def sign_bundle(path: PathLike, key: PathLike) -> Path:
    """Check a bundle directory whole, sign its manifest with a private key file, and write `manifest.sig` into it."""
    path = Path(path)
    if not path.is_dir():
        raise UsageError(f"{path} is not a directory", allowed="a bundle directory", remedy="sign it before packing it")
    Bundle.open(path).verify()
    private = _private_key(key)
    signature = private.sign((path / MANIFEST_NAME).read_bytes())
    public = private.public_key().public_bytes_raw()
    record = {"algorithm": ALGORITHM, "public_key": public.hex(), "signature": signature.hex()}
    write_bytes(path / SIGNATURE_NAME, (json.dumps(record, sort_keys=True) + "\n").encode())
    return path / SIGNATURE_NAME


def verify_signature(path: PathLike, public_key: PathLike) -> None:
    """Check that the holder of a public key's private half signed the bundle's manifest as it is now.

    Args:
        path: a bundle directory or `.eightfold` file.
        public_key: a file of 64 hex digits, from a place that you trust; the one named in the bundle proves nothing.

    Raises:
        IntegrityError: there is no signature, or it is not that key's signature of this manifest.
    """
    from cryptography.exceptions import InvalidSignature

    store = open_store(Path(path))
    key = _public_key(public_key)
    signature = _signature(store.read(SIGNATURE_NAME, SIGNATURE_LIMIT_BYTES), path)
    try:
        key.verify(signature, store.read(MANIFEST_NAME, MANIFEST_LIMIT_BYTES))
    except InvalidSignature:
        raise IntegrityError(
            f"{path}: the manifest's signature is not one by the key {public_key}",
            allowed="a manifest signed by that key and not changed since",
            remedy="get the bundle again from who made it, and check that this is their key",
        ) from None


def _signature(data: bytes, path: PathLike) -> bytes:
    try:
        record = json.loads(data)
        if record["algorithm"] == ALGORITHM:
            return bytes.fromhex(record["signature"])
    except (ValueError, KeyError, TypeError):
        pass
    raise BundleError(f"{path}: {SIGNATURE_NAME} holds no {ALGORITHM} signature", allowed="a file by `eightfold sign`")


def _private_key(path: PathLike) -> Ed25519PrivateKey:
    require("cryptography", "sign bundles")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(_key_bytes(path))


def _public_key(path: PathLike) -> Ed25519PublicKey:
    require("cryptography", "check signatures")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(_key_bytes(path))


def _key_bytes(path: PathLike) -> bytes:
    try:
        data = bytes.fromhex(Path(path).read_text().strip())
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read a key from {path} ({error})", allowed="a file of 64 hex digits") from None
    if len(data) != KEY_BYTES:
        raise UsageError(f"{path} holds {len(data)} bytes", allowed=f"a key of {KEY_BYTES} bytes as 64 hex digits")
    return data
