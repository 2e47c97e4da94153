"""Checks who made a bundle, by an Ed25519 signature (RFC 8032) of its manifest.

Digests find accidents; a signature tells whether the holder of a key made the bundle. `manifest.sig` is one JSON line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.errors import BundleError, IntegrityError, UsageError
from eightfold.extras import require
from eightfold.files import PathLike
from eightfold.runtime.bundle.bundle_names import SIGNATURE_NAME
from eightfold.runtime.bundle.bundle_store import Store

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ALGORITHM = "ed25519"
SIGNATURE_LIMIT_BYTES = 4096
KEY_LIMIT_BYTES = 1 << 16


def check_signature(store: Store, manifest: bytes, public_key: PathLike) -> None:
    """Check that the holder of a public key's private half signed `manifest`. `Bundle.open` with a key calls this.

    Args:
        store: where the bundle's signature lies.
        manifest: the bytes of `manifest.json`.
        public_key: a PEM file from a place that you trust; the key that the bundle itself names proves nothing.

    Raises:
        IntegrityError: there is no signature, or it is not that key's signature of this manifest.
    """
    key = _public_key(public_key)
    from cryptography.exceptions import InvalidSignature

    if SIGNATURE_NAME not in store.names():
        raise IntegrityError(
            f"{store.path} is not signed",
            allowed=f"a bundle signed by the key {public_key}",
            remedy="ask who made it for a signed one",
        )
    signer, signature = _signature(store.read(SIGNATURE_NAME, SIGNATURE_LIMIT_BYTES), store.path)
    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        other = signer != key.public_bytes_raw()
        raise IntegrityError(
            f"{store.path} "
            + ("was signed by another key" if other else "was changed after it was signed, or its signature was"),
            allowed=f"a manifest signed by {public_key} and not changed since",
            remedy="get the bundle again from who made it"
            + (", and check that this is their key" if other else ", in a way that nobody can change"),
        ) from None


def _signature(data: bytes, path: Path) -> tuple[bytes, bytes]:
    """The public key that the file names, and the signature."""
    try:
        record = json.loads(data)
        if record["algorithm"] == ALGORITHM:
            return bytes.fromhex(record["public_key"]), bytes.fromhex(record["signature"])
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise BundleError(f"{path}: {SIGNATURE_NAME} holds no {ALGORITHM} signature", allowed="a file by `eightfold sign`")


def _public_key(path: PathLike) -> Ed25519PublicKey:
    require("cryptography", "check signatures")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem_bytes(path, "give the file that who made the bundle handed out, KEY.pub"))
    except ValueError as error:
        raise no_key(path, "public", str(error)) from None
    if not isinstance(key, Ed25519PublicKey):
        raise no_key(path, "public", f"it is a {type(key).__name__}")
    return key


def pem_bytes(path: PathLike, remedy: str) -> bytes:
    """Content of a key file. Raises UsageError with `remedy` where it cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(KEY_LIMIT_BYTES)
    except OSError as error:
        raise UsageError(
            f"cannot read the key {path} ({error.strerror})", allowed="a PEM file", remedy=remedy
        ) from None


def no_key(path: PathLike, half: str, reason: str) -> UsageError:
    """The error for a file that holds no `half` ("private" or "public") key."""
    reason = reason.partition("\n")[0][:120] or "damaged"
    pem = pem_bytes(path, f"give the {half} key's file")
    seen = next((each for each in ("private", "public") if f" {each.upper()} KEY-".encode() in pem), None)
    if seen not in (None, half):
        return UsageError(f"{path} holds a {seen} key", allowed=f"the {half} one")
    return UsageError(
        f"{path} holds no {half} Ed25519 key that can be read ({reason})",
        allowed="an unencrypted PEM file, as by: eightfold sign --new-key, or openssl genpkey -algorithm ed25519",
    )
