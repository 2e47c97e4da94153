"""eightfold-run, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import eightfold
from eightfold.calib.images.decode import read_image
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BackendError
from eightfold.export.bundle.write import zip_bundle
from eightfold.pipeline.bench_models import bench
from eightfold.runtime.bench import remote
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess.results import Classification
from eightfold.runtime.predict.predictor import Predictor
from tests.cpp.conftest import LIBRARY_VARIABLE
from tests.sshd import needs_sshd, running_sshd

MakeBundle = Callable[..., Path]
PROGRAM = "programs/eightfold-run"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def run() -> Run:
    library = os.environ.get(LIBRARY_VARIABLE)
    if not library:
        pytest.skip(f"{LIBRARY_VARIABLE} does not name a built libeightfold.so; run: make check-cpp")
    program = Path(library).parent / PROGRAM

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)

    return call


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Path:
    task = Task(kind="classify", decode="classify", labels=("red", "green", "blue"))
    return make_bundle(Preprocess(height=32, width=32), task, {"logits": (3,)}, batches=(1, 4))


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"eightfold {eightfold.__version__}\n"


def test_backends(run: Run) -> None:
    assert run("--backends").stdout.startswith("onnxruntime 1.")


def photograph(mode: str = "RGB") -> Image.Image:
    """Smooth in one half, noise in the other."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    pixels[:, :25] = cv2.resize(pixels[:4, :3], (25, 40))
    return Image.fromarray(pixels).convert(mode)


def with_alpha(mode: str) -> Image.Image:
    picture = photograph(mode)
    picture.putalpha(photograph("L").transpose(Image.Transpose.ROTATE_180))
    return picture


def turned(orientation: int) -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x112] = orientation
    return {"exif": exif.tobytes()}


FORMS: dict[str, tuple[Image.Image, dict[str, Any]]] = {
    "rgb.png": (photograph(), {}),
    "grey.png": (photograph("L"), {}),
    "rgba.png": (with_alpha("RGB"), {}),
    "grey-alpha.png": (with_alpha("L"), {}),
    "palette.png": (photograph().quantize(40), {}),
    "palette-4-bits.png": (photograph().quantize(12), {"bits": 4}),
    "palette-transparent.png": (photograph().quantize(40), {"transparency": 3}),
    "grey-transparent.png": (photograph("L"), {"transparency": 77}),
    "one-bit.png": (photograph("1"), {}),
    "rgb.ppm": (photograph(), {}),
    "grey.pgm": (photograph("L"), {}),
    **{f"turned-{each}.png": (photograph(), turned(each)) for each in range(1, 9)},
}
PHOTOGRAPHS: dict[str, tuple[Image.Image, dict[str, Any]]] = {
    "baseline.jpg": (photograph(), {"quality": 90}),
    "progressive.jpg": (photograph(), {"quality": 90, "progressive": True}),
    "full-chroma.jpeg": (photograph(), {"quality": 90, "subsampling": 0}),
    "grey.jpg": (photograph("L"), {}),
    **{f"turned-{each}.jpg": (photograph(), {"quality": 90, **turned(each)}) for each in (3, 6, 7)},
}


def probabilities(run: Run, bundle: Path, form: str, picture: Image.Image, options: dict[str, Any]) -> list[Any]:
    """Of a file, and of the pixels that Python reads from it; by label."""
    path, plain = bundle.parent / form, bundle.parent / "plain.ppm"
    picture.save(path, **options)
    Image.fromarray(read_image(path)).save(plain)
    answers = json.loads(run(bundle, path, plain, "--json", "-").stdout)
    return [{each["label"]: each["probability"] for each in answers[str(name)]["top"]} for name in (path, plain)]


@pytest.mark.parametrize("form", FORMS)
def test_image_formats_agree(run: Run, bundle: Path, form: str) -> None:
    native, python = probabilities(run, bundle, form, *FORMS[form])
    assert native == python
    assert set(native) == {"red", "green", "blue"}


@pytest.mark.parametrize("form", PHOTOGRAPHS)
def test_photographs_agree_but_for_rounding(run: Run, bundle: Path, form: str) -> None:
    """Two decoders of JPEG may differ by a few levels; other pixels would change far more."""
    native, python = probabilities(run, bundle, form, *PHOTOGRAPHS[form])
    assert native == pytest.approx(python, abs=2e-3)


def test_deep_pictures_keep_their_bits(run: Run, make_bundle: MakeBundle, tmp_path: Path) -> None:
    """As a picture and as an array, the answers are those of Python; a bundle of 8 bits refuses both."""
    task = Task(kind="classify", decode="classify", labels=("red", "green", "blue"))
    how = Preprocess(height=40, width=50, pixels="uint16", scale=1 / 4095)
    bundle = make_bundle(how, task, {"logits": (3,)})
    pixels = np.random.default_rng(0).integers(0, 4096, (40, 50, 3), dtype=np.uint16)
    paths = [tmp_path / "deep.png", tmp_path / "deep.npy"]
    cv2.imwrite(str(paths[0]), pixels[..., ::-1])
    np.save(paths[1], pixels)
    picture, array = scores_of(run, bundle, paths)
    assert picture == array == pytest.approx(expected_of(bundle, pixels))
    shallow = make_bundle(Preprocess(height=40, width=50), task, {"logits": (3,)})
    for path in paths:
        done = run(shallow, path)
        assert (done.returncode, "type uint16; allowed: uint8" in done.stderr) == (1, True)


def test_deep_netpbm_is_refused(run: Run, bundle: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "deep.pgm"), np.full((20, 30), 3211, np.uint16))
    done = run(bundle, tmp_path / "deep.pgm")
    assert (done.returncode, "PPM or PGM of 255 levels" in done.stderr) == (1, True)


@pytest.mark.parametrize("channels", [2, 4, 6, 13])
def test_images_of_other_channels(run: Run, make_bundle: MakeBundle, tmp_path: Path, channels: int) -> None:
    task = Task(kind="classify", decode="classify", labels=("red", "green", "blue"))
    how = Preprocess(height=40, width=50, channels=channels, mean=tuple(np.linspace(0.1, 0.9, channels)))
    bundle = make_bundle(how, task, {"logits": (3,)})
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, channels), dtype=np.uint8)
    paths = [tmp_path / "image.npy"]
    np.save(paths[0], pixels)
    if channels == 4:  # the fourth channel of a picture is its alpha
        paths.append(tmp_path / "image.png")
        cv2.imwrite(str(paths[1]), pixels[..., [2, 1, 0, 3]])
    for scores in scores_of(run, bundle, paths):
        assert scores == pytest.approx(expected_of(bundle, pixels))


def scores_of(run: Run, bundle: Path, paths: list[Path]) -> list[dict[str, float]]:
    answers = json.loads(run(bundle, *paths, "--json", "-").stdout)
    return [{each["label"]: each["probability"] for each in answers[str(path)]["top"]} for path in paths]


def expected_of(bundle: Path, pixels: NDArray[Any]) -> dict[str, float]:
    with Predictor(bundle) as predictor:
        answer = predictor.predict(pixels)
    assert isinstance(answer, Classification)
    return {each.label: each.probability for each in answer.top}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5), np.float32), "its values have another type"),
        (np.asfortranarray(np.zeros((4, 5), np.uint8)), "its order is Fortran's"),
        (np.zeros(7, np.uint8), "it is no image"),
        (np.zeros((0, 5), np.uint8), "its size is not possible"),
    ],
)
def test_arrays_that_are_no_images(run: Run, bundle: Path, tmp_path: Path, array: NDArray[Any], message: str) -> None:
    np.save(tmp_path / "x.npy", array)
    done = run(bundle, tmp_path / "x.npy")
    assert (done.returncode, message in done.stderr) == (1, True)


def test_one_line_per_image(run: Run, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.full((8, 8, 3), 200, np.uint8))
    (line,) = run(bundle, path).stdout.splitlines()
    assert line.startswith(f"{path}: ")
    assert line.count("%") == 3


def test_bench_writes_a_latency_table(run: Run, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    done = run(bundle, "--bench", "--seconds", "0.2", "--threads", "1", "--json", path)
    assert done.stdout.count("pruned fp32 on onnxruntime") == 2
    table = LatencyTable.load(path)
    assert [row.batch for row in table.rows] == [1, 4]
    assert all(row.timing.runs > 10 and row.timing.p50_ms for row in table.rows)


def test_bench_compares_with_the_baseline_of_the_bundle(run: Run, make_bundle: MakeBundle, tmp_path: Path) -> None:
    task = Task(kind="classify", decode="classify", labels=("red", "green", "blue"))
    how, variants = Preprocess(height=32, width=32), ("baseline", "pruned")
    bundle = make_bundle(how, task, {"logits": (3,)}, batches=(1, 4), variants=variants)
    path = tmp_path / "latency.json"
    done = run(bundle, "--bench", "--seconds", "0.2", "--threads", "1", "--json", path)
    table = LatencyTable.load(path)
    assert table.baseline == "baseline fp32"
    assert [(row.batch, row.variant) for row in table.rows] == [(b, variant) for b in (1, 4) for variant in variants]
    for row in table.rows:
        interval = row.speedup
        assert (interval is None) == (row.variant == "baseline")
        assert interval is None or (interval.low <= interval.value <= interval.high and str(interval) in done.stdout)
    only = run(bundle, "--bench", "--seconds", "0.1", "--variant", "pruned")
    assert "baseline" not in only.stdout


def test_one_size_of_several(run: Run, make_bundle: MakeBundle, tmp_path: Path) -> None:
    task = Task(kind="classify", decode="classify", labels=("red", "green", "blue"))
    how, variants, sizes = Preprocess(height=32, width=32), ("baseline", "pruned"), ((16, 24), (32, 32))
    bundle = make_bundle(how, task, {"logits": (3,)}, variants=variants, sizes=sizes)
    path, answers = tmp_path / "latency.json", set()
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    for words, (height, width) in (([], (32, 32)), (["--size", "32"], (32, 32)), (["--size", "16x24"], (16, 24))):
        run(bundle, "--bench", "--seconds", "0.05", "--threads", "1", "--json", path, *words)
        table = LatencyTable.load(path)
        names = [f"{variant} fp32 at {height}x{width}" for variant in variants]
        assert (table.baseline, [row.name for row in table.rows]) == (names[0], names)
        assert [row.input_shapes for row in table.rows] == [{"images": (1, 3, height, width)}] * 2
        answers.add(run(bundle, picture, *words).stdout)
    assert len(answers) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere", "x.png"], 1, "there is no bundle at 'nowhere'"),
        (["{bundle}", "nowhere.png"], 1, "there is no image at 'nowhere.png'"),
        (["{bundle}", "{bundle}/manifest.json"], 1, "its format is unknown"),
        (["{bundle}", "x.png", "--batch", "3"], 2, "nothing in this bundle is auto auto on auto, batch 3"),
        (["{bundle}", "x.png", "--backend", "tensorrt"], 1, "no back end 'tensorrt'"),
        (["{bundle}", "x.png", "--threads", "many"], 2, "--threads many"),
        (["{bundle}", "x.png", "--size", "32x"], 2, "--size 32x; allowed: SIDE or HEIGHTxWIDTH, in pixels"),
        (["{bundle}", "x.png", "--size", "0"], 2, "--size 0; allowed"),
        (["{bundle}", "x.png", "--size", "8x8x8"], 2, "--size 8x8x8; allowed"),
        (["{bundle}", "x.png", "--size", "31"], 2, "on auto at 31x31; allowed: pruned fp32 on onnxruntime at 32x32"),
        (["{bundle}", "{bundle}"], 1, "it is empty, or a directory"),
        (["{bundle}", "x.png", "--threads", "100000"], 2, "threads is 100000; allowed: up to "),
        (["{bundle}", "--bench", "--json", "{bundle}"], 2, "cannot write {bundle}: it is a directory"),
        (["{bundle}", "x.png", "--json", "{bundle}/manifest.json/x"], 1, "there is no image"),
        (["{bundle}", "--wrong"], 2, "unknown option --wrong"),
        (["{bundle}"], 2, "usage:"),
    ],
)
def test_wrong_input_gives_one_line(run: Run, bundle: Path, arguments: list[str], code: int, message: str) -> None:
    done = run(*(word.format(bundle=bundle) for word in arguments))
    assert (done.returncode, done.stdout) == (code, "")
    assert message.format(bundle=bundle) in done.stderr


@pytest.mark.parametrize("words", [["{picture}", "--json", "{picture}"], ["--bench", "--json", "{packed}"]])
def test_what_is_read_is_never_written_over(run: Run, bundle: Path, tmp_path: Path, words: list[str]) -> None:
    files = {"picture": tmp_path / "picture.png", "packed": zip_bundle(bundle, tmp_path / "packed.eightfold")}
    cv2.imwrite(str(files["picture"]), np.zeros((20, 20, 3), np.uint8))
    before = [path.read_bytes() for path in files.values()]
    done = run(files["packed"], *(word.format(**files) for word in words))
    assert (done.returncode, "it is read here" in done.stderr) == (2, True)
    assert [path.read_bytes() for path in files.values()] == before


def test_a_percentile_of_too_few_runs_is_no_number(run: Run, bundle: Path) -> None:
    done = run(bundle, "--bench", "--seconds", "0.001", "--threads", "1")
    assert done.returncode == 0
    assert "nan" not in done.stdout
    assert " - " in done.stdout


def test_damaged_images(run: Run, bundle: Path, tmp_path: Path) -> None:
    paths = []
    np.save(tmp_path / "whole.npy", np.asarray(photograph()))
    for form in ("png", "jpg", "ppm", "npy"):
        if form != "npy":
            photograph().save(tmp_path / f"whole.{form}")
        whole = (tmp_path / f"whole.{form}").read_bytes()
        for size in (8, 20, 40, len(whole) // 2, len(whole) - 20):
            paths.append(tmp_path / f"{size}.{form}")
            paths[-1].write_bytes(whole[:size])
    for path in paths:
        done = run(bundle, path)
        assert (done.returncode, f"cannot read {path}" in done.stderr) == (1, True)


@needs_sshd
def test_a_board_with_this_program_alone_is_measured_over_ssh(
    run: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PROGRAMS", {"eightfold-run": remote.PROGRAMS["eightfold-run"]})
    with running_sshd(tmp_path / "sshd") as port:
        (tmp_path / "sshd" / "bin" / "eightfold-run").symlink_to(Path(os.environ[LIBRARY_VARIABLE]).parent / PROGRAM)
        board = f"ssh://127.0.0.1:{port}"
        table = bench(bundle, device=board, seconds=0.05, threads=1, backends=["onnxruntime"])
        assert [(row.variant, row.batch, row.threads) for row in table.rows] == [("pruned", 1, 1), ("pruned", 4, 1)]
        assert "measured by eightfold-run" in table.describe()
        assert [row.name for row in bench(bundle, device=board, sizes=[32], seconds=0.05).rows] == ["pruned fp32"] * 2
        with pytest.raises(BackendError, match=r"on auto at 31x31; allowed: pruned fp32 on onnxruntime at 32x32"):
            bench(bundle, device=board, sizes=[31], seconds=0.05)
        with pytest.raises(BackendError, match=r"127\.0\.0\.1 answered: eightfold-run: .*batch 3"):
            bench(bundle, device=board, batches=[3], seconds=0.05)
