from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BundleError, IntegrityError, UsageError
from eightfold.export.bundle.write import write_bundle, zip_bundle
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.bundle_names import SIGNATURE_NAME
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sign import new_key, sign_bundle
from eightfold.runtime.predict.predictor import Predictor
from tests.forging import rewrite_manifest


def make(path: Path, name: str = "x") -> Path:
    note = path.parent / "note.txt"
    note.write_text("hello")
    task, how = Task(kind="tensors", decode="none"), Preprocess(height=1, width=1)
    return write_bundle(path, name=name, task=task, preprocess=how, artifacts=[], files={"note.txt": note})


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make(tmp_path / "bundle")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    new_key(tmp_path / "k")
    return tmp_path / "k"


def test_a_signed_bundle_is_accepted_as_directory_and_as_zip(bundle: Path, key: Path, tmp_path: Path) -> None:
    sign_bundle(bundle, key)
    assert Bundle.open(bundle, key=f"{key}.pub").verify() == 1
    packed = Bundle.open(zip_bundle(bundle, tmp_path / "b.eightfold"), key=f"{key}.pub")
    assert packed.verify() == 1
    assert packed.unlisted() == []


def test_a_zip_is_signed_as_it_is(tmp_path: Path, bundle: Path, key: Path) -> None:
    first = sign_bundle(zip_bundle(bundle, tmp_path / "1.eightfold"), key)
    assert Bundle.open(first, key=f"{key}.pub").verify() == 1
    sign_bundle(first, key)  # again: one signature is kept
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist().count(SIGNATURE_NAME) == 1
    sign_bundle(bundle, key)
    assert zip_bundle(bundle, tmp_path / "2.eightfold").read_bytes() == first.read_bytes()


def test_another_key_is_refused(bundle: Path, key: Path, tmp_path: Path) -> None:
    sign_bundle(bundle, key)
    with pytest.raises(IntegrityError, match=r"was signed by another key.*check that this is their key"):
        Bundle.open(bundle, key=new_key(tmp_path / "other"))


def test_a_changed_manifest_is_refused(bundle: Path, key: Path) -> None:
    sign_bundle(bundle, key)
    rewrite_manifest(bundle, lambda data: data.update(name="y"))
    with pytest.raises(IntegrityError, match="was changed after it was signed"):
        Bundle.open(bundle, key=f"{key}.pub")
    assert Bundle.open(bundle).manifest.name == "y"  # digests alone do not tell


def test_a_signature_of_another_bundle_is_refused(bundle: Path, key: Path, tmp_path: Path) -> None:
    other = sign_bundle(make(tmp_path / "other", "other"), key)
    shutil.copy(other / SIGNATURE_NAME, bundle / SIGNATURE_NAME)
    with pytest.raises(IntegrityError, match="was changed after it was signed"):
        Bundle.open(bundle, key=f"{key}.pub")


def test_naming_the_trusted_key_does_not_help_a_forger(bundle: Path, key: Path, tmp_path: Path) -> None:
    new_key(tmp_path / "forger")
    sign_bundle(bundle, key)
    trusted = json.loads((bundle / SIGNATURE_NAME).read_text())["public_key"]
    sign_bundle(bundle, tmp_path / "forger")
    record = json.loads((bundle / SIGNATURE_NAME).read_text()) | {"public_key": trusted}
    (bundle / SIGNATURE_NAME).write_text(json.dumps(record))
    with pytest.raises(IntegrityError, match="was changed after it was signed, or its signature was"):
        Bundle.open(bundle, key=f"{key}.pub")


def test_a_changed_file_is_refused(bundle: Path, key: Path) -> None:
    sign_bundle(bundle, key)
    (bundle / "note.txt").write_text("HELLO")
    with pytest.raises(IntegrityError, match=r"note\.txt differs from its SHA-256"):
        Bundle.open(bundle, key=f"{key}.pub").verify()
    with pytest.raises(IntegrityError, match=r"note\.txt differs from its SHA-256"):
        sign_bundle(bundle, key)


def test_no_signature_is_refused_where_one_is_asked_for(bundle: Path, key: Path) -> None:
    with pytest.raises(IntegrityError, match="is not signed; allowed: a bundle signed by the key"):
        Bundle.open(bundle, key=f"{key}.pub")
    with pytest.raises(IntegrityError, match="is not signed"):
        Predictor(bundle, key=f"{key}.pub")
    with pytest.raises(UsageError, match="a key for a bundle that is open"):
        Predictor(Bundle.open(bundle), key=f"{key}.pub")


@pytest.mark.parametrize(
    "text", ["", "[]", "[" * 4000, '{"algorithm": "rsa", "signature": "00"}', '{"algorithm": "ed25519"}', "\xff"]
)
def test_a_damaged_signature_file_is_refused(bundle: Path, key: Path, text: str) -> None:
    (bundle / SIGNATURE_NAME).write_text(text)
    with pytest.raises(BundleError, match="holds no ed25519 signature"):
        Bundle.open(bundle, key=f"{key}.pub")


def test_the_private_key_is_for_its_owner_and_is_never_replaced(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_text()
    with pytest.raises(UsageError, match="exists; allowed: a new file"):
        new_key(key)
    assert key.read_text() == before


def test_a_key_that_finds_no_room_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, mode: str) -> None:
        os.close(handle)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eightfold.runtime.bundle.sign.os.fdopen", full)
    with pytest.raises(UsageError, match="No space left on device"):
        new_key(tmp_path / "new.key")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "zz", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused(bundle: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad").write_text(text)
    with pytest.raises(UsageError, match="holds no private Ed25519 key"):
        sign_bundle(bundle, tmp_path / "bad")
    with pytest.raises(UsageError, match=r"cannot read the key .*absent"):
        sign_bundle(bundle, tmp_path / "absent")


def test_the_halves_of_a_key_are_not_taken_for_each_other(bundle: Path, key: Path) -> None:
    with pytest.raises(UsageError, match="holds a public key; allowed: the private one"):
        sign_bundle(bundle, f"{key}.pub")
    sign_bundle(bundle, key)
    with pytest.raises(UsageError, match="holds a private key; allowed: the public one"):
        Bundle.open(bundle, key=key)


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the oracle, openssl, is not installed")
def test_keys_and_signatures_are_those_of_openssl(bundle: Path, tmp_path: Path) -> None:
    private, public, signature = (tmp_path / name for name in ("o.key", "o.pub", "sig"))
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    sign_bundle(bundle, private)
    Bundle.open(bundle, key=public)
    signature.write_bytes(bytes.fromhex(json.loads((bundle / SIGNATURE_NAME).read_text())["signature"]))
    manifest = bundle / "manifest.json"
    openssl("pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", manifest, "-sigfile", signature)


def test_an_absent_public_key_is_asked_for_and_not_made(bundle: Path, key: Path, tmp_path: Path) -> None:
    """`eightfold verify` has no --new-key, and a new key would have signed nothing."""
    sign_bundle(bundle, key)
    with pytest.raises(UsageError, match=r"cannot read the key .*; allowed: a PEM file; give the file that .*KEY\.pub"):
        Bundle.open(bundle, key=tmp_path / "absent.pub")
