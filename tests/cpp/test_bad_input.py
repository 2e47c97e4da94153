"""What is wrong gets a status and a line that says so; the engine stays usable."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import eightfold
from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.bundle.write import zip_bundle
from eightfold.runtime.bundle.bundle_names import MANIFEST_NAME
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sign import new_key, sign_bundle
from eightfold.runtime.predict.predictor import Predictor
from tests.cpp.native import NativeEngine, NativeError, image_of
from tests.forging import pack, refer_outside, replace_file, rewrite_manifest, write_manifest
from tests.hostile_manifests import ACCEPTED, REFUSED, SAFE_NAMES, UNSAFE_NAMES

MakeBundle = Callable[..., Path]
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
MODEL = "onnx/pruned-b1.onnx"


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Path:
    task = Task(kind="classify", decode="classify", labels=("red", "green", "blue"))
    return make_bundle(Preprocess(height=32, width=32), task, {"logits": (3,)}, batches=(1, 4))


def status_of(library: ctypes.CDLL, path: Path) -> tuple[str, str]:
    with pytest.raises(NativeError) as caught:
        NativeEngine(library, path, threads=1).run([PICTURE])
    return caught.value.status, str(caught.value)


def test_version(library: ctypes.CDLL) -> None:
    assert library.eightfold_version().decode() == eightfold.__version__


def test_directory_and_zip_give_the_same(library: ctypes.CDLL, bundle: Path, tmp_path: Path) -> None:
    packed = zip_bundle(bundle, tmp_path / "test.eightfold")
    pictures = [PICTURE, PICTURE[:20], PICTURE[:, :20]]
    from_directory = NativeEngine(library, bundle, threads=1).run(pictures)
    from_zip = NativeEngine(library, packed, threads=1).run(pictures)
    assert [from_directory.classes(i) for i in range(3)] == [from_zip.classes(i) for i in range(3)]


def test_edited_manifest(library: ctypes.CDLL, bundle: Path) -> None:
    path = bundle / MANIFEST_NAME
    path.write_text(path.read_text().replace("red", "rot"))
    assert status_of(library, bundle) == (
        "integrity",
        f"{bundle}: manifest.json differs from the digest in manifest.sha256; allowed: a manifest as it was written; "
        "copy the bundle again from where it was made, or make it again",
    )


def test_flipped_byte_in_a_model(library: ctypes.CDLL, bundle: Path) -> None:
    data = bytearray((bundle / MODEL).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / MODEL).write_bytes(data)
    status, message = status_of(library, bundle)
    assert (status, "differs from its SHA-256" in message) == ("integrity", True)


def test_truncated_and_missing_files(library: ctypes.CDLL, bundle: Path) -> None:
    data = (bundle / MODEL).read_bytes()
    (bundle / MODEL).write_bytes(data[:-1])
    assert status_of(library, bundle)[0] == "integrity"
    (bundle / MODEL).unlink()
    status, message = status_of(library, bundle)
    assert (status, "is missing" in message) == ("integrity", True)


def test_link_instead_of_a_file(library: ctypes.CDLL, bundle: Path, tmp_path: Path) -> None:
    (bundle / MODEL).rename(tmp_path / "elsewhere.onnx")
    (bundle / MODEL).symlink_to(tmp_path / "elsewhere.onnx")
    status, message = status_of(library, bundle)
    assert (status, "is or lies behind a link" in message) == ("integrity", True)


@pytest.mark.parametrize("name", UNSAFE_NAMES)
def test_names_that_leave_the_bundle_or_mean_two_files(library: ctypes.CDLL, bundle: Path, name: str) -> None:
    entry = {"bytes": 1, "sha256": "0" * 64}
    rewrite_manifest(bundle, lambda manifest: manifest["files"].update({name: entry}))
    status, message = status_of(library, bundle)
    assert (status, "the manifest names the file" in message) == ("bundle", True)


@pytest.mark.parametrize("name", SAFE_NAMES)
def test_names_that_may_be(library: ctypes.CDLL, bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    replace_file(bundle, name, b"content")
    NativeEngine(library, bundle, threads=1)


@pytest.mark.parametrize("location", ["../secret.bin", "{root}/secret.bin", "./own.weights", "*/_ORT_MEM_ADDR_/*"])
@pytest.mark.parametrize("form", ["directory", "zip"])
def test_weights_that_lie_elsewhere(
    library: ctypes.CDLL, bundle: Path, tmp_path: Path, location: str, form: str
) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(12))
    refer_outside(bundle, MODEL, location.format(root=tmp_path))
    status, message = status_of(library, bundle if form == "directory" else pack(bundle, tmp_path / "b.eightfold"))
    assert (status, "takes weights from" in message) == ("bundle", True)


def test_weights_that_are_not_the_artifacts_own(library: ctypes.CDLL, bundle: Path) -> None:
    (bundle / "onnx" / "beside.bin").write_bytes(bytes(12))
    refer_outside(bundle, MODEL, "beside.bin", own=())
    assert status_of(library, bundle)[0] == "bundle"


def test_weights_beyond_the_end_of_their_file(library: ctypes.CDLL, bundle: Path) -> None:
    refer_outside(bundle, MODEL, "own.weights", offset=4096, length=12)
    status, message = status_of(library, bundle)
    assert (status, "takes bytes 4096 to 4108 of onnx/own.weights; allowed: 0 to 12" in message) == ("bundle", True)


def test_weights_of_its_own_are_read(library: ctypes.CDLL, bundle: Path, tmp_path: Path) -> None:
    refer_outside(bundle, MODEL, "own.weights", length=12)
    for path in (bundle, pack(bundle, tmp_path / "b.eightfold")):
        assert NativeEngine(library, path, threads=1).run([PICTURE]).classes(0)


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_manifests_are_refused_as_in_python(library: ctypes.CDLL, bundle: Path, name: str) -> None:
    write_manifest(bundle, REFUSED[name]((bundle / MANIFEST_NAME).read_text()))
    assert status_of(library, bundle)[0] == "bundle"


@pytest.mark.parametrize("name", ACCEPTED)
def test_odd_manifests_are_taken_as_in_python(library: ctypes.CDLL, bundle: Path, name: str) -> None:
    write_manifest(bundle, ACCEPTED[name]((bundle / MANIFEST_NAME).read_text()))
    NativeEngine(library, bundle, threads=1)


def test_a_key_holds_the_bundle_to_its_signature(library: ctypes.CDLL, bundle: Path, tmp_path: Path) -> None:
    public = new_key(tmp_path / "key")
    with pytest.raises(NativeError, match="is not signed") as unsigned:
        NativeEngine(library, bundle, public_key=str(public))
    assert unsigned.value.status == "integrity"
    sign_bundle(bundle, tmp_path / "key")
    for path in (bundle, zip_bundle(bundle, tmp_path / "b.eightfold")):
        NativeEngine(library, path, public_key=str(public))
        for key, status, words in (
            (new_key(tmp_path / f"{path.suffix}other"), "integrity", "was signed by another key"),
            (tmp_path / "key", "usage", "holds no public Ed25519 key"),
            (tmp_path / "absent", "usage", "cannot read the key"),
        ):
            with pytest.raises(NativeError, match=words) as caught:
                NativeEngine(library, path, public_key=str(key))
            assert caught.value.status == status
    rewrite_manifest(bundle, lambda manifest: manifest.update(name="other"))
    with pytest.raises(NativeError, match="or changed after it was signed"):
        NativeEngine(library, bundle, public_key=str(public))


def test_unknown_preprocessing_is_refused(library: ctypes.CDLL, bundle: Path) -> None:
    rewrite_manifest(bundle, lambda manifest: manifest["preprocess"].update(gamma=2.2))
    status, message = status_of(library, bundle)
    assert (status, "preprocess.gamma is a key that this version does not know" in message) == ("bundle", True)


def test_zip_cut_off_anywhere(library: ctypes.CDLL, bundle: Path, tmp_path: Path) -> None:
    packed = zip_bundle(bundle, tmp_path / "test.eightfold")
    data = packed.read_bytes()
    for size in (0, 1, 100, len(data) // 2, len(data) - 30, len(data) - 1):
        packed.write_bytes(data[:size])
        assert status_of(library, packed)[0] in ("bundle", "integrity")


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({"backend": "nothing"}, "missing_backend", "no back end 'nothing'"),
        ({"precision": "int8"}, "usage", "nothing in this bundle is auto int8"),
        ({"provider": "cuda"}, "backend", "onnxruntime cannot load"),
        ({"provider": "abacus"}, "usage", "unknown provider 'abacus'"),
        ({"threads": -1}, "usage", "threads is -1"),
        ({"threads": 100_000}, "usage", "threads is 100000; allowed: up to [0-9]+ on this machine"),
    ],
)
def test_wrong_options(
    library: ctypes.CDLL, bundle: Path, options: dict[str, object], status: str, message: str
) -> None:
    with pytest.raises(NativeError, match=message) as caught:
        NativeEngine(library, bundle, **options).run([PICTURE])
    assert caught.value.status == status


def test_an_engine_survives_bad_requests(library: ctypes.CDLL, bundle: Path) -> None:
    engine = NativeEngine(library, bundle, threads=1)
    before = engine.run([PICTURE]).classes(0)
    for bad in ([], [np.zeros((0, 3, 3), np.uint8)], [PICTURE, np.zeros((3, 0, 3), np.uint8)]):
        with pytest.raises(NativeError):
            engine.run(bad)
    assert engine.run([PICTURE]).classes(0) == before


def test_tensors_in_and_out(library: ctypes.CDLL, bundle: Path) -> None:
    images = np.random.default_rng(0).standard_normal((5, 3, 32, 32)).astype(np.float32)
    (logits,) = NativeEngine(library, bundle, threads=1).run_tensors([images])
    with Predictor(bundle, backend="onnxruntime") as predictor:
        np.testing.assert_allclose(logits, predictor.run({"images": images})["logits"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((1, 3, 32, 32), np.uint8, "is of uint8; allowed: float32"),
        ((1, 3, 32, 31), np.float32, r"has shape \(1, 3, 32, 31\); allowed: \(1, 3, 32, 32\)"),
        ((1, 4, 32, 32), np.float32, r"has shape \(1, 4, 32, 32\)"),
        ((0, 3, 32, 32), np.float32, "0 rows"),
    ],
)
def test_wrong_tensors(
    library: ctypes.CDLL, bundle: Path, shape: tuple[int, ...], dtype: type[np.generic], message: str
) -> None:
    engine = NativeEngine(library, bundle, threads=1)
    with pytest.raises(NativeError, match=message) as caught:
        engine.run_tensors([np.zeros(shape, dtype)])
    assert caught.value.status == "usage"
    assert engine.run_tensors([np.zeros((1, 3, 32, 32), np.float32)])[0].shape == (1, 3)


def test_tensors_that_are_not_numbers(library: ctypes.CDLL, bundle: Path) -> None:
    engine = NativeEngine(library, bundle, threads=1)
    tensor = np.zeros((1, 3, 32, 32), np.float32)
    tensor[0, 1, 2, 3] = np.nan
    with pytest.raises(NativeError, match="holds NaN or infinity"):
        engine.run_tensors([tensor])


def test_unknown_pixel_format(library: ctypes.CDLL, bundle: Path) -> None:
    image = image_of(PICTURE)
    image.format = 9
    engine, result = NativeEngine(library, bundle, threads=1), ctypes.c_void_p()
    assert library.eightfold_engine_run(engine.handle, ctypes.byref(image), 1, ctypes.byref(result)) == 2
    assert b"pixel format 9; allowed: 0 (rgb) to 5 (stored)" in library.eightfold_last_error()


def test_a_file_deleted_while_running(library: ctypes.CDLL, bundle: Path) -> None:
    engine = NativeEngine(library, bundle, threads=1)
    before = engine.run([PICTURE]).classes(0)
    (bundle / "onnx" / "pruned-b4.onnx").unlink()
    with pytest.raises(NativeError, match="is missing") as caught:
        engine.run([PICTURE] * 4)
    assert caught.value.status == "integrity"
    assert engine.run([PICTURE]).classes(0) == before


def test_null_pointers(library: ctypes.CDLL) -> None:
    assert library.eightfold_engine_load(None, None, None) == 1
    assert b"path is NULL" in library.eightfold_last_error()
    assert library.eightfold_engine_run(None, None, 0, None) == 1
    library.eightfold_engine_free(None)
    library.eightfold_result_free(None)
    assert library.eightfold_result_count(None) == 0
