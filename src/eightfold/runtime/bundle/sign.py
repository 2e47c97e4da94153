"""Signs a bundle: an Ed25519 signature (RFC 8032) of its manifest, which in turn names the digest of every file.

Keys are PEM files as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them, too.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.errors import UsageError
from eightfold.extras import require
from eightfold.files import PathLike, atomic_path, write_bytes
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.bundle_names import (
    MANIFEST_DIGEST_NAME,
    MANIFEST_LIMIT_BYTES,
    MANIFEST_NAME,
    SIGNATURE_NAME,
)
from eightfold.runtime.bundle.bundle_store import open_store
from eightfold.runtime.bundle.signature import ALGORITHM, no_key, pem_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def new_key(path: PathLike) -> Path:
    """Write a new private key to `path` (readable by you alone, without a password) and its public key to `<path>.pub`.

    Raises UsageError where either exists: a key is never replaced.
    """
    require("cryptography", "sign bundles")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = Path(path)
    public = path.with_name(path.name + ".pub")
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    shown = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    made: list[Path] = []
    for file, mode, content in ((path, 0o600, secret), (public, 0o644, shown)):
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            made.append(file)
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
        except FileExistsError:
            raise UsageError(
                f"{file} exists", allowed="a new file", remedy="leave out --new-key to sign with that key"
            ) from None
        except OSError as error:
            for half in made:  # of a key that nobody has used
                half.unlink()
            raise UsageError(f"cannot write {file} ({error.strerror})", allowed="a writable folder") from None
    return public


def sign_bundle(path: PathLike, key: PathLike) -> Path:
    """Verify a bundle, sign its manifest, and add `manifest.sig`.

    Args:
        path: a bundle directory or `.eightfold` file; a signature that it has is replaced.
        key: the PEM file of a private Ed25519 key.

    Returns:
        `path`.
    """
    path = Path(path)
    private = _private_key(key)
    Bundle.open(path).verify()
    signature = private.sign(open_store(path).read(MANIFEST_NAME, MANIFEST_LIMIT_BYTES))
    public = private.public_key().public_bytes_raw()
    record = {"algorithm": ALGORITHM, "public_key": public.hex(), "signature": signature.hex()}
    data = (json.dumps(record, sort_keys=True) + "\n").encode()
    if path.is_dir():
        write_bytes(path / SIGNATURE_NAME, data)
    else:
        _put_into_zip(path, data)
    return path


def _put_into_zip(path: Path, signature: bytes) -> None:
    with atomic_path(path) as temporary, zipfile.ZipFile(path) as old, zipfile.ZipFile(temporary, "w") as new:
        for member in old.infolist():
            if member.filename == SIGNATURE_NAME:
                continue
            with old.open(member) as source, new.open(_like(member), "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)
            if member.filename == MANIFEST_DIGEST_NAME:
                with new.open(_like(member, SIGNATURE_NAME), "w", force_zip64=True) as target:  # as zip_bundle does
                    target.write(signature)


def _like(member: zipfile.ZipInfo, name: str = "") -> zipfile.ZipInfo:
    """A member to be written with the date and permissions of another."""
    new = zipfile.ZipInfo(name or member.filename, member.date_time)
    new.external_attr, new.compress_type = member.external_attr, member.compress_type
    return new


def _private_key(path: PathLike) -> Ed25519PrivateKey:
    require("cryptography", "sign bundles")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem_bytes(path, "make one: --new-key"), password=None)
    except (ValueError, TypeError) as error:  # TypeError: it has a password
        raise no_key(path, "private", str(error)) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise no_key(path, "private", f"it is a {type(key).__name__}")
    return key
