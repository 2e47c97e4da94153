"""Measuring over ssh, against a real sshd on the loopback interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eightfold.errors import BackendError, UsageError
from eightfold.pipeline.bench_models import bench
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.bench.ssh import Address, Board
from tests.sshd import free_port, needs_sshd, running_sshd


@pytest.fixture(scope="module")
def sshd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its `bin` is on the board's PATH."""
    return tmp_path_factory.mktemp("sshd")


@pytest.fixture(scope="module")
def port(sshd_folder: Path) -> Iterator[int]:
    with running_sshd(sshd_folder) as number:
        yield number


@needs_sshd
def test_the_table_comes_back_and_nothing_stays(
    port: int, bundle_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    remote = tmp_path / "board tmp"
    remote.mkdir()
    monkeypatch.setattr("eightfold.runtime.bench.ssh.MAKE_FOLDER", f"mktemp -d -p '{remote}'")
    table = bench(
        bundle_path,
        batches=[1, 4],
        sizes=[8],
        backends=["onnxruntime"],
        seconds=0.02,
        threads=1,
        baseline="pruned-fp32",
        device=f"ssh://127.0.0.1:{port}",
    )
    assert [(row.name, row.batch, row.threads) for row in table.rows] == [("pruned-fp32", 1, 1), ("pruned-fp32", 4, 1)]
    assert list(remote.iterdir()) == []


@needs_sshd
def test_what_the_board_says_is_passed_on(port: int, bundle_path: Path) -> None:
    with pytest.raises(BackendError, match=r"127\.0\.0\.1 answered: eightfold: batch 3 is not in it; allowed: 1, 4"):
        bench(bundle_path, batches=[3], device=f"ssh://127.0.0.1:{port}")


@needs_sshd
def test_a_board_without_eightfold(port: int, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eightfold.runtime.bench.remote.PROGRAMS", {"none-such": None, "nor-this": None})
    message = (
        r"has no none-such and no nor-this on its PATH; there, run: pip install 'eightfold\[cpu\]'; where Python is"
    )
    with pytest.raises(BackendError, match=message):
        bench(bundle_path, device=f"ssh://127.0.0.1:{port}")


# eightfold-run as far as this side can tell: it notes its arguments, looks for the bundle, and gives a table.
NATIVE = """#!/bin/sh
printf '%s\\n' "$@" > "{folder}/arguments"
test -f "$1/manifest.json" || {{ echo "no bundle" >&2; exit 1; }}
while [ "$1" != --json ]; do shift; done
cp "{folder}/table.json" "$2"
echo "a table for a terminal"
"""


@pytest.fixture
def native(
    sshd_folder: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., LatencyTable]]:
    """The board has eightfold-run alone; call with the arguments of `bench`."""
    from eightfold.runtime.bench.remote import PROGRAMS

    monkeypatch.setattr(
        "eightfold.runtime.bench.remote.PROGRAMS", {"no-python-here": None, "eightfold-run": PROGRAMS["eightfold-run"]}
    )
    program = sshd_folder / "bin" / "eightfold-run"
    table = sshd_folder / "table.json"
    if not table.exists():  # one does for all tests
        bench(bundle_path, backends=["onnxruntime"], seconds=0.02).save(table)
    program.write_text(NATIVE.format(folder=sshd_folder))
    program.chmod(0o755)
    yield bench
    program.unlink()


@needs_sshd
def test_a_board_whose_python_is_too_old(
    port: int, bundle_path: Path, sshd_folder: Path, native: Callable[..., LatencyTable]
) -> None:
    board = f"ssh://127.0.0.1:{port}"
    table = native(
        bundle_path, device=board, seconds=2, threads=1, backends=["onnxruntime-cuda"], batches=[4], sizes=[8]
    )
    assert [row.batch for row in table.rows] == [4]
    _, *words = (sshd_folder / "arguments").read_text().split()
    words.remove(next(word for word in words if word.endswith("latency.json")))
    options = "--seconds 2 --threads 1 --batch 4 --size 8x8 --backend onnxruntime --provider cuda"
    assert " ".join(words) == f"--bench --json {options}"


@needs_sshd
def test_of_all_that_eightfold_run_measured_what_was_asked_for_is_left(
    port: int, bundle_path: Path, sshd_folder: Path, native: Callable[..., LatencyTable]
) -> None:
    board = f"ssh://127.0.0.1:{port}"
    assert [row.batch for row in native(bundle_path, device=board).rows] == [1, 4]
    assert [row.batch for row in native(bundle_path, device=board, batches=[4, 1]).rows] == [1, 4]
    assert "--batch" not in (sshd_folder / "arguments").read_text()
    with pytest.raises(UsageError, match="batch 2 is not in it; allowed: 1, 4"):
        native(bundle_path, device=board, batches=[1, 2])


@needs_sshd
@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"baseline": "x"}, "--baseline"),
        ({"end_to_end": True}, "--end-to-end"),
        ({"backends": ["onnxruntime", "tensorrt"]}, "more than one --backend"),
        ({"backends": ["openvino"]}, "--backend openvino"),
        ({"sizes": [8, (6, 12)]}, "more than one --size"),
    ],
)
def test_what_eightfold_run_cannot_do(
    port: int, bundle_path: Path, native: Callable[..., LatencyTable], options: dict[str, Any], refused: str
) -> None:
    message = f"the board has only eightfold-run, which does not take {refused}; allowed: a bundle; --batch, --seconds"
    with pytest.raises(UsageError, match=message):
        native(bundle_path, device=f"ssh://127.0.0.1:{port}", **options)


@needs_sshd
def test_a_model_file_on_a_board_with_eightfold_run_alone(
    port: int, bundle_path: Path, native: Callable[..., LatencyTable]
) -> None:
    with pytest.raises(UsageError, match=r"pruned-b1\.onnx, which is no bundle"):
        native(bundle_path / "onnx/pruned-b1.onnx", device=f"ssh://127.0.0.1:{port}")


@needs_sshd
def test_files_and_folders_arrive_whole(port: int, tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    (folder / "inside").mkdir(parents=True)
    (folder / "inside" / "data").write_bytes(bytes(range(256)) * 5000)
    with Board(Address.parse(f"ssh://127.0.0.1:{port}")) as board:
        there = board.upload(folder)
        assert board.output(f"cat '{there}/inside/data' | wc -c") == str(256 * 5000)
        place = board.folder
    assert not Path(place).exists()


@needs_sshd
def test_a_board_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, bundle_path: Path) -> None:
    monkeypatch.setenv("EIGHTFOLD_SSH", "ssh -F none -o BatchMode=yes")
    with pytest.raises(BackendError, match=r"cannot reach 127\.0\.0\.1 .*check that this works: ssh 127\.0\.0\.1"):
        bench(bundle_path, device=f"ssh://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ssh://board", Address("board")),
        ("ssh://nvidia@10.0.0.5:2222/", Address("10.0.0.5", "nvidia", 2222)),
        ("ssh://me@[fe80::1]", Address("fe80::1", "me")),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert Address.parse(url) == address


@pytest.mark.parametrize("url", ["board", "ssh://", "ssh://-oProxyCommand=x", "ssh://a b", "ssh://a@b@c", "http://a"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match=r"allowed: ssh://\[user@\]host\[:port\]"):
        Address.parse(url)


def test_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is nothing at"):
        bench(tmp_path / "none", device="ssh://board")
