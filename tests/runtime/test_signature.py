from __future__ import annotations

import stat
from pathlib import Path

import pytest

from eightfold.calib.preprocess import Preprocess
from eightfold.errors import BundleError, IntegrityError, UsageError
from eightfold.export.bundle import write_bundle, zip_bundle
from eightfold.runtime.manifest import Task
from eightfold.runtime.signature import new_key, sign_bundle, verify_signature


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "note.txt").write_text("hello")
    task, how = Task(kind="tensors", decode="none"), Preprocess(height=1, width=1)
    files = {"note.txt": tmp_path / "note.txt"}
    return write_bundle(tmp_path / "bundle", name="x", task=task, preprocess=how, artifacts=[], files=files)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    new_key(tmp_path / "k")
    return tmp_path / "k"


def test_a_signed_bundle_is_accepted_as_directory_and_as_zip(bundle: Path, key: Path, tmp_path: Path) -> None:
    sign_bundle(bundle, key)
    verify_signature(bundle, f"{key}.pub")
    verify_signature(zip_bundle(bundle, tmp_path / "b.eightfold"), f"{key}.pub")


def test_another_key_is_refused(bundle: Path, key: Path, tmp_path: Path) -> None:
    sign_bundle(bundle, key)
    with pytest.raises(IntegrityError, match="signature is not one by the key"):
        verify_signature(bundle, new_key(tmp_path / "other"))


def test_a_changed_manifest_is_refused(bundle: Path, key: Path) -> None:
    sign_bundle(bundle, key)
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"x"', '"y"'))
    with pytest.raises(IntegrityError, match="signature is not one by the key"):
        verify_signature(bundle, f"{key}.pub")


def test_no_signature_is_refused(bundle: Path, key: Path) -> None:
    with pytest.raises(IntegrityError, match=r"manifest\.sig is missing"):
        verify_signature(bundle, f"{key}.pub")


@pytest.mark.parametrize("text", ["", "[]", '{"algorithm": "rsa", "signature": "00"}', '{"algorithm": "ed25519"}'])
def test_a_damaged_signature_file_is_refused(bundle: Path, key: Path, text: str) -> None:
    (bundle / "manifest.sig").write_text(text)
    with pytest.raises(BundleError, match="holds no ed25519 signature"):
        verify_signature(bundle, f"{key}.pub")


def test_the_private_key_is_for_its_owner_and_is_never_replaced(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_text()
    with pytest.raises(UsageError, match="exists; allowed: a new file"):
        new_key(key)
    assert key.read_text() == before


@pytest.mark.parametrize("text", ["", "zz", "00" * 31])
def test_what_is_no_key_is_refused(bundle: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad").write_text(text)
    with pytest.raises(UsageError, match="64 hex digits"):
        sign_bundle(bundle, tmp_path / "bad")
