from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from eightfold.calib.images.decode import read_image
from eightfold.cli.app import main
from eightfold.errors import ImageError, UsageError
from eightfold.runtime.postprocess.results import Classification, ClassScore, Detections, Matte, Segmentation, Tensors
from eightfold.runtime.predict.draw import GREEN, colour_of, draw
from eightfold.runtime.predict.frames import frames_of, is_live
from eightfold.runtime.predict.predict_sources import predict_sources
from eightfold.runtime.predict.predictor import Predictor

RED_BGR, BLUE_BGR = (0, 0, 255), (255, 0, 0)


def flat(colour: tuple[int, int, int], size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    return np.full((*size, 3), colour, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """b.png is red, a.jpg is blue."""
    path = tmp_path / "images"
    path.mkdir()
    cv2.imwrite(str(path / "b.png"), flat(RED_BGR))
    cv2.imwrite(str(path / "a.jpg"), flat(BLUE_BGR))
    (path / "notes.txt").write_text("no image")
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Six frames: three red, three blue."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for colour in [RED_BGR] * 3 + [BLUE_BGR] * 3:
        writer.write(flat(colour))
    writer.release()
    return path


def test_a_folder_in_name_order(bundle_path: Path, folder: Path) -> None:
    with Predictor(bundle_path) as predictor:
        found = [(Path(each.frame.source).name, str(each.result)[:4]) for each in predict_sources(predictor, [folder])]
    assert found == [("a.jpg", "blue"), ("b.png", "red ")]


def test_what_is_hidden_is_no_picture(bundle_path: Path, folder: Path) -> None:
    (folder / "._a.jpg").write_bytes(b"what macOS keeps of a file beside it")
    with Predictor(bundle_path) as predictor:
        found = [Path(each.frame.source).name for each in predict_sources(predictor, [folder])]
    assert found == ["a.jpg", "b.png"]


def test_a_damaged_picture_costs_the_others_no_answer(bundle_path: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "aa.png").touch()
    skipped: list[ImageError] = []
    with Predictor(bundle_path) as predictor:
        answers = predict_sources(predictor, [folder], json_lines=tmp_path / "answers.jsonl", unreadable=skipped.append)
        assert [Path(each.frame.source).name for each in answers] == ["a.jpg", "b.png"]
        with pytest.raises(ImageError, match=r"aa\.png is empty"):
            list(predict_sources(predictor, [folder]))
    assert [error.seen for error in skipped] == [f"{folder / 'aa.png'} is empty"]
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 2


def test_a_picture_of_other_bits_costs_the_others_no_answer(bundle_path: Path, folder: Path) -> None:
    """Its preprocessing takes 8 bits a channel."""
    cv2.imwrite(str(folder / "aa.png"), np.full((8, 8), 4000, np.uint16))
    skipped: list[ImageError] = []
    with Predictor(bundle_path) as predictor:
        seen = list(predict_sources(predictor, [folder], unreadable=skipped.append))
        assert [Path(each.frame.source).name for each in seen] == ["a.jpg", "b.png"]
        with pytest.raises(ImageError, match=r"aa.png: an image of shape .* uint16; allowed: .* uint8; it has"):
            predictor.predict(folder / "aa.png")
    assert [error.seen for error in skipped] == [f"{folder / 'aa.png'}: an image of shape (8, 8, 3) and type uint16"]


def test_the_command_names_damaged_pictures_and_fails(
    bundle_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "aa.png").touch()
    monkeypatch.setattr("sys.argv", ["eightfold", "predict", str(bundle_path), str(folder)])
    assert main() == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert said.err.splitlines()[-2:] == [
        f"  skipped: {folder / 'aa.png'} is empty",
        "eightfold: 1 of 3 pictures could not be read; the others have their answers; remove or replace them",
    ]


def test_a_video_frame_by_frame(bundle_path: Path, video: Path) -> None:
    with Predictor(bundle_path) as predictor:
        predictions = list(predict_sources(predictor, [video]))
    assert [each.result.to_dict()["top"][0]["label"] for each in predictions] == ["red"] * 3 + ["blue"] * 3
    assert str(predictions[4]).startswith(f"{video} frame 4: blue")
    assert predictions[0].frame.fps == pytest.approx(10)


def test_the_limit(bundle_path: Path, video: Path) -> None:
    with Predictor(bundle_path) as predictor:
        assert len(list(predict_sources(predictor, [video], limit=2))) == 2
        with pytest.raises(UsageError, match="a limit of 0 pictures"):
            list(predict_sources(predictor, [video], limit=0))


def test_json_lines(bundle_path: Path, folder: Path, video: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    with Predictor(bundle_path) as predictor:
        list(predict_sources(predictor, [folder / "b.png", video], json_lines=output))
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(lines) == 7
    assert lines[0]["source"] == str(folder / "b.png")
    assert lines[0]["size"] == [48, 64]
    assert lines[0]["result"]["top"][0]["label"] == "red"
    assert "frame" not in lines[0]
    assert lines[6]["frame"] == 5


def test_nothing_half_written_stays(bundle_path: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "c.png").write_bytes(b"broken")
    with Predictor(bundle_path, batch=1) as predictor, pytest.raises(ImageError, match=r"c\.png"):
        list(predict_sources(predictor, [folder], json_lines=tmp_path / "answers.jsonl"))
    assert sorted(path.name for path in tmp_path.glob("*answers*")) == []


def test_annotated_pictures(bundle_path: Path, folder: Path, video: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with Predictor(bundle_path) as predictor:
        list(predict_sources(predictor, [folder, video], annotated=output))
    assert sorted(path.name for path in output.iterdir()) == ["a.jpg", "b.png", "clip-annotated.mp4"]
    assert (read_image(output / "b.png") != read_image(folder / "b.png")).any()
    assert len(list(frames_of([output / "clip-annotated.mp4"]))) == 6


def test_the_pictures_themselves_are_never_overwritten(bundle_path: Path, folder: Path) -> None:
    before = (folder / "b.png").read_bytes()
    with Predictor(bundle_path) as predictor:
        list(predict_sources(predictor, [folder / "b.png"], annotated=folder))
    assert (folder / "b.png").read_bytes() == before
    assert (folder / "b-annotated.png").exists()


def test_a_picture_of_another_folder_overwrites_no_source(bundle_path: Path, folder: Path, tmp_path: Path) -> None:
    """other/b.png comes first and would be drawn over images/b.png before that is read."""
    (tmp_path / "other").mkdir()
    cv2.imwrite(str(tmp_path / "other" / "b.png"), flat(BLUE_BGR))
    before = (folder / "b.png").read_bytes()
    with Predictor(bundle_path) as predictor:
        found = [
            str(each.result)[:4] for each in predict_sources(predictor, [tmp_path / "other", folder], annotated=folder)
        ]
    assert found[0] == "blue"
    assert (folder / "b.png").read_bytes() == before


def test_pictures_of_one_name_are_all_written(bundle_path: Path, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    cv2.imwrite(str(other / "b.png"), flat(BLUE_BGR))
    with Predictor(bundle_path) as predictor:
        list(predict_sources(predictor, [folder / "b.png", other / "b.png"], annotated=tmp_path / "out"))
    assert tuple(read_image(tmp_path / "out" / "b.png")[-1, -1]) == (255, 0, 0)
    assert tuple(read_image(tmp_path / "out" / "b-2.png")[-1, -1]) == (0, 0, 255)


def test_an_interrupted_recording_can_be_played(bundle_path: Path, video: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with Predictor(bundle_path, batch=1) as predictor:
        predictions = predict_sources(predictor, [video], annotated=output)
        for _ in range(4):
            next(predictions)
        assert [path.suffixes for path in output.iterdir()] == [[".tmp", ".mp4"]]
        with pytest.raises(KeyboardInterrupt):
            predictions.throw(KeyboardInterrupt())  # type: ignore[attr-defined]  # it is a generator
    assert [path.name for path in output.iterdir()] == ["clip-annotated.mp4"]
    assert len(list(frames_of([output / "clip-annotated.mp4"]))) == 4


def test_a_recording_replaces_an_older_one_when_it_is_complete(bundle_path: Path, video: Path, tmp_path: Path) -> None:
    older = tmp_path / "out" / "clip-annotated.mp4"
    older.parent.mkdir()
    older.write_bytes(b"older")
    with Predictor(bundle_path, batch=1) as predictor:
        predictions = predict_sources(predictor, [video], annotated=older.parent)
        next(predictions)
        assert older.read_bytes() == b"older"
        list(predictions)
    assert len(list(frames_of([older]))) == 6


def test_pictures_into_a_file(bundle_path: Path, folder: Path) -> None:
    with Predictor(bundle_path) as predictor, pytest.raises(UsageError, match=r"notes\.txt: it is a file; allowed: a"):
        list(predict_sources(predictor, [folder], annotated=folder / "notes.txt"))


def test_a_camera_that_is_not_there_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    level = cv2.utils.logging.getLogLevel()
    with pytest.raises(ImageError, match="cannot open camera 77; allowed: a camera that is connected"):
        next(frames_of(["77"]))
    assert capfd.readouterr().err == ""
    assert cv2.utils.logging.getLogLevel() == level


def test_what_cannot_be_recorded_or_written_says_so(
    bundle_path: Path, video: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2.VideoWriter, "isOpened", lambda self: False)
    monkeypatch.setattr(cv2, "imwrite", lambda path, pixels: False)
    output = tmp_path / "out"
    with Predictor(bundle_path) as predictor:
        with pytest.raises(ImageError, match=r"OpenCV cannot record .*clip-annotated\.mp4; allowed: an OpenCV with"):
            list(predict_sources(predictor, [video], annotated=output))
        with pytest.raises(ImageError, match=r"OpenCV cannot write .*a\.jpg"):
            list(predict_sources(predictor, [folder], annotated=output))
    assert list(output.iterdir()) == []


def test_what_is_live() -> None:
    assert is_live("0")
    assert is_live("rtsp://camera/stream")
    assert not is_live("clip.mp4")


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot read .*none\.png"):
        next(frames_of([tmp_path / "none.png"]))
    with pytest.raises(ImageError, match=r"there is no video .*none\.mp4"):
        next(frames_of([tmp_path / "none.mp4"]))
    with pytest.raises(ImageError, match="no images in"):
        next(frames_of([tmp_path]))


def test_a_box_is_drawn_where_it_is() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    found = Detections(
        np.array([[50, 80, 150, 180]], np.float32), np.array([0.9], np.float32), np.array([3], np.int64), ("cat",)
    )
    drawn = draw(image, found)
    assert tuple(drawn[130, 50]) == colour_of(3)
    assert tuple(drawn[180, 100]) == colour_of(3)
    assert not drawn[130, 100].any()
    assert not image.any()


def test_classes_are_written_in_the_corner() -> None:
    drawn = draw(np.zeros((200, 300, 3), np.uint8), Classification((ClassScore(1, "dog", 0.75),)))
    assert tuple(drawn[1, 1]) == colour_of(1)
    assert not drawn[150].any()


def test_areas_are_coloured() -> None:
    classes = np.zeros((10, 10), np.uint8)
    classes[5:] = 7
    drawn = draw(np.zeros((10, 10, 3), np.uint8), Segmentation(classes, ()))
    np.testing.assert_array_equal(drawn[9, 9], np.array(colour_of(7)) // 2)


def test_areas_have_a_legend() -> None:
    classes = np.zeros((300, 400), np.uint8)
    classes[:20, :20] = 1
    drawn = draw(np.zeros((300, 400, 3), np.uint8), Segmentation(classes, ("road", "car", "sky")))
    first, second = drawn[1, 0], drawn[25:40, 0]
    assert tuple(first) == colour_of(0)  # the largest comes first, at full strength
    assert (second == colour_of(1)).all(axis=1).any()
    assert tuple(drawn[299, 399]) == tuple(np.array(colour_of(0)) // 2)


def test_a_label_stays_in_the_picture() -> None:
    box = np.array([[280, 80, 299, 100]], np.float32)
    found = Detections(box, np.array([0.9], np.float32), np.array([3], np.int64), ("a long name",))
    drawn = draw(np.zeros((200, 300, 3), np.uint8), found)
    lettered = np.argwhere((drawn[:79] == colour_of(3)).all(axis=2))
    assert lettered[:, 1].min() < 250  # moved to the left


def test_a_matte_is_put_on_green() -> None:
    drawn = draw(np.full((4, 4, 3), 200, np.uint8), Matte(np.eye(4, dtype=np.float32)))
    assert tuple(drawn[0, 0]) == (200, 200, 200)
    assert tuple(drawn[0, 1]) == GREEN


def test_other_answers_leave_the_picture_alone() -> None:
    image = np.full((4, 4, 3), 9, np.uint8)
    np.testing.assert_array_equal(draw(image, Tensors({})), image)
