"""eightfold-run, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import eightfold
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BackendError
from eightfold.export.bundle.write import zip_bundle
from eightfold.runtime.bench import remote
from eightfold.runtime.bench.bench import bench
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.bundle.manifest import Task
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


@pytest.mark.parametrize("form", ["rgb.png", "grey.png", "rgba.png", "rgb.ppm", "grey.pgm"])
def test_image_formats_agree(run: Run, bundle: Path, tmp_path: Path, form: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    if "grey" in form:
        picture[:] = picture[..., :1]
    stored = {"rgba": cv2.COLOR_BGR2BGRA, "grey": cv2.COLOR_BGR2GRAY}.get(form.partition(".")[0])
    path, plain = tmp_path / form, tmp_path / "plain.ppm"
    cv2.imwrite(str(path), picture if stored is None else cv2.cvtColor(picture, stored))
    cv2.imwrite(str(plain), picture)
    done = run(bundle, path, plain, "--json", "-")
    answers = json.loads(done.stdout)
    assert answers[str(path)] == answers[str(plain)]
    assert {each["label"] for each in answers[str(path)]["top"]} == {"red", "green", "blue"}


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
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8))
    whole = path.read_bytes()
    for size in (8, 20, 40, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:size])
        done = run(bundle, path)
        assert (done.returncode, "cannot read" in done.stderr) == (1, True)


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
