from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest

from eightfold.errors import BundleError, IntegrityError
from eightfold.export.bundle.write import zip_bundle
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.bundle_names import MANIFEST_DIGEST_NAME, MANIFEST_NAME
from eightfold.runtime.predict.predictor import Predictor
from tests.forging import pack, refer_outside, replace_file, rewrite_manifest, write_manifest
from tests.hostile_manifests import ACCEPTED, REFUSED, SAFE_NAMES, UNSAFE_NAMES

FILE = "onnx/pruned-b1.onnx"


def flip_byte(path: Path, at: int = 100) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.fixture
def zipped(bundle_path: Path, tmp_path: Path) -> Path:
    return zip_bundle(bundle_path, tmp_path / "colours.eightfold")


def test_a_bundle_opens_and_verifies(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    assert bundle.verify() == len(bundle.manifest.files) >= 2
    assert bundle.file(FILE) == bundle_path / FILE
    assert bundle.artifact("pruned-fp32-b4").batch == 4


def test_a_zip_opens_and_its_members_are_unpacked_when_asked_for(zipped: Path, bundle_path: Path) -> None:
    bundle = Bundle.open(zipped)
    assert bundle.file(FILE).read_bytes() == (bundle_path / FILE).read_bytes()
    assert bundle.verify() == len(bundle.manifest.files) >= 2


def test_a_zip_leaves_nothing_behind(zipped: Path) -> None:
    bundle = Bundle.open(zipped)
    unpacked = bundle.file(FILE)
    del bundle
    assert not unpacked.exists()


def test_a_predictor_runs_a_zip(zipped: Path) -> None:
    import numpy as np

    with Predictor(zipped) as predictor:
        assert predictor.predict(np.full((9, 9, 3), (0, 0, 255), np.uint8)).label == "blue"


def test_the_digest_file_is_what_sha256sum_reads(bundle_path: Path) -> None:
    digest, name = (bundle_path / MANIFEST_DIGEST_NAME).read_text().split("  ")
    assert len(digest) == 64
    assert name == "manifest.json\n"


def test_a_flipped_byte_names_the_file(bundle_path: Path) -> None:
    flip_byte(bundle_path / FILE)
    bundle = Bundle.open(bundle_path)  # sizes agree; the digest is checked when the file is needed
    with pytest.raises(IntegrityError, match=r"onnx/pruned-b1\.onnx differs from its SHA-256"):
        bundle.verify()
    bundle.file("onnx/pruned-b4.onnx")


def test_a_flipped_byte_in_a_zip_names_the_file(zipped: Path, bundle_path: Path) -> None:
    content = (bundle_path / FILE).read_bytes()
    flip_byte(zipped, zipped.read_bytes().index(content) + 100)
    with pytest.raises(IntegrityError, match=r"onnx/pruned-b1\.onnx differs from its SHA-256"):
        Bundle.open(zipped).verify()


def test_a_truncated_file(bundle_path: Path) -> None:
    (bundle_path / FILE).write_bytes(b"short")
    with pytest.raises(IntegrityError, match=r"pruned-b1\.onnx has 5 bytes; allowed: \d+, as in the manifest"):
        Bundle.open(bundle_path)


def test_a_missing_file(bundle_path: Path) -> None:
    (bundle_path / FILE).unlink()
    with pytest.raises(IntegrityError, match=r"pruned-b1\.onnx is missing"):
        Bundle.open(bundle_path)


def test_a_manifest_edited_by_hand(bundle_path: Path) -> None:
    manifest = bundle_path / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace("red", "rot"))
    with pytest.raises(IntegrityError, match=r"manifest\.json differs from the digest in manifest\.sha256"):
        Bundle.open(bundle_path)


def test_a_bundle_without_the_manifest_digest(bundle_path: Path) -> None:
    (bundle_path / MANIFEST_DIGEST_NAME).unlink()
    with pytest.raises(IntegrityError, match=r"manifest\.sha256 is missing"):
        Bundle.open(bundle_path)


def test_an_unknown_schema_says_what_can_read_it(bundle_path: Path) -> None:
    rewrite_manifest(bundle_path, lambda data: data.update(schema=99, provenance={}))
    with pytest.raises(BundleError, match=r"schema 99; allowed: schema 1; .*version that wrote it"):
        Bundle.open(bundle_path)


def test_an_unknown_schema_names_the_version_that_wrote_it(bundle_path: Path) -> None:
    versions = {"versions": {"eightfold": "7.1"}}
    rewrite_manifest(bundle_path, lambda data: data.update(schema=99, provenance=versions))
    with pytest.raises(BundleError, match=r"schema 99; allowed: schema 1; read it with eightfold 7\.1, which wrote it"):
        Bundle.open(bundle_path)


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_manifests_are_refused(bundle_path: Path, name: str) -> None:
    write_manifest(bundle_path, REFUSED[name]((bundle_path / MANIFEST_NAME).read_text()))
    with pytest.raises(BundleError, match=r"bundle"):
        Bundle.open(bundle_path)


@pytest.mark.parametrize("name", ACCEPTED)
def test_odd_manifests_are_taken(bundle_path: Path, name: str) -> None:
    write_manifest(bundle_path, ACCEPTED[name]((bundle_path / MANIFEST_NAME).read_text()))
    Bundle.open(bundle_path)


@pytest.mark.parametrize("name", UNSAFE_NAMES)
def test_names_that_leave_the_bundle_or_mean_two_files(bundle_path: Path, name: str) -> None:
    rewrite_manifest(bundle_path, lambda data: data["files"].update({name: data["files"][FILE]}))
    with pytest.raises(BundleError, match="the manifest names the file"):
        Bundle.open(bundle_path)


@pytest.mark.parametrize("name", SAFE_NAMES)
def test_names_that_may_be(bundle_path: Path, name: str) -> None:
    (bundle_path / name).parent.mkdir(parents=True, exist_ok=True)
    replace_file(bundle_path, name, b"content")
    Bundle.open(bundle_path).verify()


def test_what_cannot_be_read_is_said(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    bundle = Bundle.open(bundle_path)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(IntegrityError, match=r"pruned-b1\.onnx cannot be read \(Permission denied\)"):
        bundle.file(FILE)


def test_a_full_disk_is_not_a_damaged_bundle(zipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    bundle = Bundle.open(zipped)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BundleError, match=r"cannot unpack .* \(No space left on device\).*set TMPDIR"):
        bundle.file(FILE)


def test_a_member_packed_in_a_way_that_not_every_reader_has(zipped: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.eightfold"
    with zipfile.ZipFile(zipped) as source, zipfile.ZipFile(other, "w") as target:
        for info in source.infolist():
            method = zipfile.ZIP_LZMA if info.filename == FILE else zipfile.ZIP_DEFLATED
            target.writestr(info.filename, source.read(info.filename), method)
    with pytest.raises(BundleError, match=r"is not a bundle \(.*b1\.onnx is encrypted or packed in an unknown way\)"):
        Bundle.open(other)


def test_a_member_that_inflates_to_more_than_it_says(zipped: Path, tmp_path: Path) -> None:
    """The directory of the archive says one size and the packed bytes go on: reading stops at what was said."""
    with zipfile.ZipFile(zipped) as archive:
        honest = archive.read(FILE)
    bomb = tmp_path / "bomb.eightfold"
    with zipfile.ZipFile(zipped) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            data = honest + bytes(50_000_000) if info.filename == FILE else source.read(info.filename)
            target.writestr(info.filename, data)
    lying = len(honest).to_bytes(4, "little")
    bomb.write_bytes(bomb.read_bytes().replace((len(honest) + 50_000_000).to_bytes(4, "little"), lying))
    bundle = Bundle.open(bomb)
    with pytest.raises(IntegrityError, match="its size is not the stated one"):
        bundle.verify()
    assert sum(file.stat().st_size for file in unpacked_files(bundle)) < 100_000


def unpacked_files(bundle: Bundle) -> list[Path]:
    folder: Path = bundle._store._unpacked  # type: ignore[attr-defined]  # of the zip form
    return [file for file in folder.rglob("*") if file.is_file()]


@pytest.mark.parametrize("inside", [FILE, "onnx"])
def test_links_are_refused(bundle_path: Path, inside: str, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (bundle_path / inside).rename(target)
    (bundle_path / inside).symlink_to(target)
    with pytest.raises(IntegrityError, match="is or lies behind a link"):
        Bundle.open(bundle_path)


def test_a_directory_in_the_place_of_a_file(bundle_path: Path) -> None:
    (bundle_path / FILE).unlink()
    (bundle_path / FILE).mkdir()
    with pytest.raises(IntegrityError, match="is not a regular file"):
        Bundle.open(bundle_path)


def test_a_pipe_in_the_place_of_a_file_does_not_hang(bundle_path: Path) -> None:
    (bundle_path / FILE).unlink()
    os.mkfifo(bundle_path / FILE)
    with pytest.raises(IntegrityError, match="is not a regular file"):
        Bundle.open(bundle_path)


def test_a_reference_to_a_file_that_is_not_listed(bundle_path: Path) -> None:
    rewrite_manifest(bundle_path, lambda data: data["documents"].update(plan="plan.json"))
    with pytest.raises(BundleError, match=r"refers to 'plan\.json', which is not among its files"):
        Bundle.open(bundle_path)


def test_no_bundle_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no bundle at .*make one with: eightfold run RECIPE"):
        Bundle.open(tmp_path / "nothing")


def test_an_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is a folder without manifest\.json"):
        Bundle.open(tmp_path)


def test_a_file_that_is_no_zip(tmp_path: Path) -> None:
    path = tmp_path / "x.eightfold"
    path.write_text("hello")
    with pytest.raises(BundleError, match="is not a bundle"):
        Bundle.open(path)


def test_a_truncated_zip(zipped: Path) -> None:
    zipped.write_bytes(zipped.read_bytes()[:-200])
    with pytest.raises(BundleError, match="is not a bundle"):
        Bundle.open(zipped)


def test_a_zip_with_a_link(zipped: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil.eightfold"
    with zipfile.ZipFile(zipped) as source, zipfile.ZipFile(evil, "w") as target:
        for info in source.infolist():
            if info.filename == FILE:
                info.external_attr = 0o120777 << 16
            target.writestr(info, source.read(info.filename))
    with pytest.raises(IntegrityError, match=r"pruned-b1\.onnx is a link"):
        Bundle.open(evil)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # zipfile warns about what this test makes
def test_a_zip_with_one_name_twice(zipped: Path) -> None:
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr(FILE, "other")
    with pytest.raises(BundleError, match="two files of one name"):
        Bundle.open(zipped)


def test_a_zip_whose_member_lost_its_name(zipped: Path) -> None:
    """Names end at a zero byte: one flip at the start of a name leaves none. ZipInfo.is_dir() fails on it."""
    data = zipped.read_bytes()
    directory = data.rindex(FILE.encode())  # the last place is the one in the archive's directory
    zipped.write_bytes(data[:directory] + b"\0" + data[directory + 1 :])
    with zipfile.ZipFile(zipped) as archive:
        assert "" in archive.namelist()
    with pytest.raises(IntegrityError, match=r"pruned-b1\.onnx is missing"):
        Bundle.open(zipped)


def test_a_nameless_member_beside_the_bundles_own_is_never_read(zipped: Path) -> None:
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr(zipfile.ZipInfo(""), "other")
    bundle = Bundle.open(zipped)
    assert bundle.unlisted() == [""]
    assert bundle.verify() == len(bundle.manifest.files)


def test_a_zip_member_larger_than_the_manifest_says(zipped: Path, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.eightfold"
    with zipfile.ZipFile(zipped) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            data = bytes(50_000_000) if info.filename == FILE else source.read(info.filename)
            target.writestr(info.filename, data)
    with pytest.raises(IntegrityError, match="has 50000000 bytes"):
        Bundle.open(bomb)


def test_files_beside_the_bundles_own_are_named_and_never_read(bundle_path: Path) -> None:
    (bundle_path / "notes.txt").write_text("mine")
    assert Bundle.open(bundle_path).unlisted() == ["notes.txt"]


def test_an_unknown_artifact(bundle_path: Path) -> None:
    with pytest.raises(BundleError, match="holds no artifact 'x'; allowed: pruned-fp32-b1, pruned-fp32-b4"):
        Bundle.open(bundle_path).artifact("x")


SECRETS = ("../secret.bin", "../../secret.bin", "{root}/secret.bin", "./own.weights", "*/_ORT_MEM_ADDR_/*", "net.onnx")


@pytest.mark.parametrize("location", SECRETS)
@pytest.mark.parametrize("form", ["directory", "zip"])
def test_a_graph_whose_weights_lie_elsewhere_is_not_run(
    bundle_path: Path, tmp_path: Path, location: str, form: str
) -> None:
    """Some versions of some backends follow such locations to any file of the machine, or into the process."""
    (tmp_path / "secret.bin").write_bytes(bytes(12))
    refer_outside(bundle_path, FILE, location.format(root=tmp_path))
    path = bundle_path if form == "directory" else pack(bundle_path, tmp_path / "b.eightfold")
    with pytest.raises(BundleError, match=r"pruned-b1\.onnx takes weights from .*; allowed: .*own\.weights"):
        Bundle.open(path).verify()
    with Predictor(path, batch=1) as predictor, pytest.raises(BundleError, match="takes weights from"):
        predictor.warmup()


def test_a_file_that_is_there_but_not_the_artifacts_own_is_not_its_weights(bundle_path: Path) -> None:
    """Its digest would never have been checked: a directory may hold more than the manifest lists."""
    (bundle_path / "onnx" / "beside.bin").write_bytes(bytes(12))
    refer_outside(bundle_path, FILE, "beside.bin")
    with pytest.raises(BundleError, match=r"takes weights from 'beside\.bin'"):
        Bundle.open(bundle_path).verify()


@pytest.mark.parametrize(("offset", "length"), [(4096, 12), (0, 10**12), (10**17, 1)])
def test_weights_beyond_the_end_of_their_file(bundle_path: Path, offset: int, length: int) -> None:
    refer_outside(bundle_path, FILE, "own.weights", offset=offset, length=length)
    with pytest.raises(BundleError, match=rf"takes bytes {offset} to {offset + length} of onnx/own\.weights"):
        Bundle.open(bundle_path).verify()


@pytest.mark.parametrize("form", ["directory", "zip"])
def test_weights_of_its_own_are_read(bundle_path: Path, tmp_path: Path, form: str) -> None:
    refer_outside(bundle_path, FILE, "own.weights", length=12)
    path = bundle_path if form == "directory" else pack(bundle_path, tmp_path / "b.eightfold")
    with Predictor(path, batch=1) as predictor:
        predictor.warmup()


def test_a_graph_that_is_none(bundle_path: Path) -> None:
    replace_file(bundle_path, FILE, b"hello")
    with pytest.raises(BundleError, match=r"pruned-b1\.onnx is no ONNX graph \("):
        Bundle.open(bundle_path).verify()


def test_weights_that_openvino_would_find_by_their_name(bundle_path: Path) -> None:
    replace_file(bundle_path, "onnx/net.xml", b"<net/>")
    rewrite_manifest(
        bundle_path, lambda data: data["artifacts"][0].update(format="openvino", path="onnx/net.xml", files=[])
    )
    assert Bundle.open(bundle_path).verify()
    (bundle_path / "onnx" / "net.bin").write_bytes(b"weights")
    with pytest.raises(BundleError, match=r"net\.xml takes weights from 'net\.bin'"):
        Bundle.open(bundle_path).verify()


def test_a_folder_of_something_else_is_no_bundle(tmp_path: Path, bundle_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    with pytest.raises(
        BundleError, match=r"photos is a folder without manifest\.json; .*; make one with: eightfold exp"
    ):
        Bundle.open(tmp_path / "photos")
    shutil.copytree(bundle_path, tmp_path / "run" / "bundle")
    with pytest.raises(BundleError, match=r"run is a folder without manifest\.json; .*; did you mean .*run/bundle\?"):
        Bundle.open(tmp_path / "run")
