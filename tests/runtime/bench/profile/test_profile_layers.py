"""Profiles with a timer of our own: what is measured, kept, resumed and refused."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import pytest

from eightfold.errors import BackendError, UnknownNameError, UsageError
from eightfold.runtime.bench.profile.grid import Point
from eightfold.runtime.bench.profile.layer_shape import LayerShape
from eightfold.runtime.bench.profile.profile_layers import profile_layers
from eightfold.runtime.bench.profile.roofline import Roofline
from eightfold.runtime.bench.profile.settings import ProfileSettings, settings_for
from eightfold.runtime.bench.profile.store import ProfileStore, default_store

CONV = LayerShape(kind="conv", size=(14, 14), kernel=(1, 1), stride=(1, 1), padding=(0, 0), activation="relu")
DEPTHWISE = LayerShape(kind="depthwise", size=(14, 14), kernel=(3, 3), stride=(1, 1), padding=(1, 1))
WIDEST = {CONV: (96, 128), DEPTHWISE: (96, 96)}


def settings(**changes: object) -> ProfileSettings:
    fields = {"target": "cpu-x86", "backend": "onnxruntime", "backend_version": "1.0", "threads": 2, "device": "a CPU"}
    return ProfileSettings.model_validate(fields | changes)


class Device:
    """A machine whose layers take whole blocks of 16 output channels, and that runs slower as time goes by."""

    def __init__(self, stop_after: int | None = None, drift: float = 1.0) -> None:
        self.asked: list[Point] = []
        self.calls, self.speed = 0, 1.0
        self.stop_after, self.drift = stop_after, drift

    def __call__(self, points: Sequence[Point], _: ProfileSettings) -> tuple[list[float], float]:
        if self.stop_after is not None and self.calls >= self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        self.asked += points
        self.speed *= self.drift
        return [self.speed * self.time(point) for point in points], self.speed * 0.5

    @staticmethod
    def time(point: Point) -> float:
        _, inputs, outputs = point
        return 0.01 + 1e-4 * inputs * ceil(outputs / 16) * 16


def test_the_device_s_step_is_found_and_every_width_predicted() -> None:
    device = Device()
    found = profile_layers(WIDEST, ProfileStore(settings(), None), timer=device)
    assert found.steps == (8, 16)
    assert found.multiple == 16
    for outputs in range(16, 129, 16):
        assert found.at(CONV, 96, outputs) == pytest.approx(device.time((CONV, 96, outputs)), rel=0.02)
    assert "width step: 16" in found.describe()


def test_a_machine_that_slows_down_does_not_bend_the_profile() -> None:
    steady = profile_layers(WIDEST, ProfileStore(settings(), None), timer=Device())
    slowing = profile_layers(WIDEST, ProfileStore(settings(), None), timer=Device(drift=1.1))
    ratio = slowing.at(CONV, 96, 128) / slowing.at(CONV, 24, 32)
    assert ratio == pytest.approx(steady.at(CONV, 96, 128) / steady.at(CONV, 24, 32), rel=0.02)


def test_a_second_profile_measures_nothing(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    first = profile_layers(WIDEST, ProfileStore(settings(), path), timer=Device())
    idle = Device(stop_after=0)
    second = profile_layers(WIDEST, ProfileStore(settings(), path), timer=idle)
    assert second.measured == 0
    assert (second.tables[CONV].ms == first.tables[CONV].ms).all()


def test_an_interrupted_profile_resumes_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    first, second = Device(stop_after=8), Device()
    with pytest.raises(KeyboardInterrupt):
        profile_layers(WIDEST, ProfileStore(settings(), path), timer=first)
    with path.open("a") as stream:
        stream.write('{"shape":{"kind":"co')  # killed while it wrote
    resumed = profile_layers(WIDEST, ProfileStore(settings(), path), timer=second)
    whole = profile_layers(WIDEST, ProfileStore(settings(), None), timer=Device())
    assert set(first.asked).isdisjoint(second.asked)
    assert resumed.tables[CONV].ms == pytest.approx(whole.tables[CONV].ms)
    assert ProfileStore(settings(), path).points.keys() >= WIDEST.keys()


@pytest.mark.parametrize(
    ("name", "other"), [("device", "another CPU"), ("backend_version", "2.0"), ("precision", "int8"), ("threads", 1)]
)
def test_a_profile_of_other_conditions_is_refused_with_the_command(tmp_path: Path, name: str, other: object) -> None:
    path = tmp_path / "points.jsonl"
    ProfileStore(settings(), path).set_reference(1.0)
    with pytest.raises(BackendError, match=rf"was measured with {name.replace('_', ' ')} .*eightfold profile MODEL"):
        ProfileStore(settings(**{name: other}), path)


def test_a_file_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    path.write_text("hello\n")
    with pytest.raises(BackendError, match="is no layer profile"):
        ProfileStore(settings(), path)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    ProfileStore(settings(), path).set_reference(1.0)
    with path.open("a") as stream:
        stream.write('{"shape":{"kind":"conv"},"ms":1}\n')
    with pytest.raises(BackendError, match=r"line 3 of .* is no point of a profile"):
        ProfileStore(settings(), path)


def test_a_target_of_another_machine_is_refused() -> None:
    with pytest.raises(UsageError, match=r"layers of 'tensorrt' cannot be timed here; allowed: .*openvino"):
        settings_for("tensorrt", "fp32")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown precision of a profile 'fp8'"):
        settings_for("openvino", "fp8")


def test_the_cache_lies_in_the_user_s_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = default_store(settings())
    store.set_reference(1.0)
    assert store.path is not None
    assert store.path.is_relative_to(tmp_path)
    assert default_store(settings(threads=1)).path != store.path


def test_a_roofline_grows_with_the_work() -> None:
    narrow, wide = Roofline().times([(CONV, 64, 64), (CONV, 512, 512)])
    assert 0 < narrow < wide
    assert Roofline().times([(CONV, 512, 512)], int8=True)[0] < wide
