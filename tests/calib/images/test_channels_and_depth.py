"""Images of other channels than grey and RGB, and of 16 bits: against OpenCV, torch and plain arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from eightfold.calib.images.decode import read_image
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.images import open_images
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ImageError

CHANNELS = (1, 2, 4, 6, 13)


def stored(height: int, width: int, channels: int, dtype: str = "uint8", seed: int = 0) -> Any:
    high = 256 if dtype == "uint8" else 4096
    return np.random.default_rng(seed).integers(0, high, (height, width, channels)).astype(dtype)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", CHANNELS)
def test_each_channel_has_its_own_mean_and_deviation(channels: int, layout: Any) -> None:
    mean, std = np.linspace(0.1, 0.9, channels), np.linspace(0.2, 0.4, channels)
    preprocess = Preprocess(
        height=9, width=7, channels=channels, color="as-is", mean=tuple(mean), std=tuple(std), layout=layout
    )
    image = stored(9, 7, channels)
    expected = ((image / 255 - mean) / std).astype(np.float32)
    expected = expected if layout == "nhwc" else expected.transpose(2, 0, 1)
    np.testing.assert_allclose(preprocess(image), expected, rtol=2e-7, atol=1e-7)
    np.testing.assert_allclose(preprocess.reference(image), expected, rtol=2e-7, atol=1e-7)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("resize", ["stretch", "letterbox", "center-crop"])
@pytest.mark.parametrize("channels", CHANNELS)
def test_resizing_treats_every_channel_as_opencv_does(channels: int, resize: Any, dtype: Any) -> None:
    preprocess = Preprocess(
        height=12, width=16, channels=channels, color="as-is", resize=resize, scale=1, pixels=dtype, pad_value=7
    )
    image = stored(31, 45, channels, dtype)
    place = preprocess.place(31, 45)
    (top, left), (height, width) = place.offset, place.resized
    canvas = np.full((channels, 12, 16), 7.0)
    for channel in range(channels):
        whole = cv2.resize(image[..., channel].copy(), (width, height), interpolation=cv2.INTER_LINEAR)
        rows, columns = max(top, 0), max(left, 0)
        part = whole[max(-top, 0) :, max(-left, 0) :][: 12 - rows, : 16 - columns]
        canvas[channel, rows : rows + part.shape[0], columns : columns + part.shape[1]] = part
    for found in (preprocess(image), preprocess.reference(image)):
        assert np.abs(found - canvas).max() <= 1


def test_twelve_bits_keep_their_low_bits(tmp_path: Path) -> None:
    """3211 arrived as 12."""
    image = stored(10, 11, 3, "uint16")
    image[0, 0] = 3211
    cv2.imwrite(str(tmp_path / "deep.png"), image[..., ::-1])
    preprocess = Preprocess(height=10, width=11, pixels="uint16", scale=1 / 4095)
    found = preprocess(read_image(tmp_path / "deep.png"))
    np.testing.assert_allclose(found, (image / 4095).transpose(2, 0, 1), rtol=1e-6)
    assert found.max() > 0.7


@pytest.mark.parametrize("suffix", ["png", "tiff", "npy"])
def test_deep_images_are_refused_in_one_line_without_the_key(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep.{suffix}"
    image = stored(10, 11, 3, "uint16")
    np.save(path, image) if suffix == "npy" else cv2.imwrite(str(path), image)
    with pytest.raises(ImageError, match=r"type uint16; allowed: .* uint8; .* pixels: uint16 .* 1/4095"):
        Preprocess(height=8, width=8)(read_image(path))


def test_shallow_images_are_refused_with_the_key() -> None:
    with pytest.raises(ImageError, match=r"type uint8; allowed: .* uint16; leave pixels"):
        Preprocess(height=8, width=8, pixels="uint16")(np.zeros((9, 9, 3), np.uint8))


def test_grey_of_sixteen_bits_is_the_same_luma() -> None:
    image = (stored(9, 9, 3).astype(np.uint16)) * 257  # 0..255 -> 0..65535
    preprocess = Preprocess(height=9, width=9, color="grey", pixels="uint16", scale=1)
    exact = image @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(preprocess(image)[0], exact, atol=1)


@pytest.mark.parametrize("channels", [2, 4, 6, 13])
def test_arrays_in_files_and_in_memory_are_the_same(tmp_path: Path, channels: int) -> None:
    images = [stored(20, 30, channels, seed=seed) for seed in range(3)]
    for index, image in enumerate(images):
        np.save(tmp_path / f"{index}.npy", image)
    (tmp_path / "list.txt").write_text("0.npy\n1.npy\n2.npy\n")
    preprocess = Preprocess(height=8, width=8, channels=channels)
    expected = [preprocess(image) for image in images]
    for source in (tmp_path, tmp_path / "list.txt", f"{tmp_path}/*.npy", images):
        np.testing.assert_array_equal(list(open_images(source).prepared(preprocess)), expected)


def test_arrays_beside_pictures_are_no_images(tmp_path: Path) -> None:
    Image.fromarray(stored(5, 5, 3)).save(tmp_path / "a.png")
    np.save(tmp_path / "labels.npy", np.arange(4))
    assert [Path(str(item)).name for item in open_images(tmp_path).items] == ["a.png"]


def test_the_alpha_of_a_png_is_the_fourth_channel(tmp_path: Path) -> None:
    image = stored(6, 5, 4)
    Image.fromarray(image).save(tmp_path / "a.png")
    (row,) = ImageSet((tmp_path / "a.png",)).prepared(Preprocess(height=6, width=5, channels=4, scale=1))
    np.testing.assert_array_equal(row, image.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4, 6), np.float32), "type float32"),
        (np.zeros(7, np.uint8), r"shape \(7,\)"),
        (np.array([{}], object), "not a complete .npy file"),
        (np.zeros((4, 4, 5), np.uint8), r"allowed: \(height, width, 6\) uint8"),
        (np.zeros((6, 40, 50), np.uint8), "move its first axis to the end"),
        (np.zeros((0, 4, 6), np.uint8), "zero size"),
        (np.zeros((4, 4, 6), np.uint16), "pixels: uint16"),
    ],
)
def test_arrays_that_fit_nothing_are_refused(tmp_path: Path, array: Any, words: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ImageError, match=words) as caught:
        Preprocess(height=8, width=8, channels=6)(read_image(tmp_path / "a.npy", as_stored=True))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [0, 5, 100])
def test_a_damaged_array_is_refused(tmp_path: Path, cut: int) -> None:
    np.save(tmp_path / "a.npy", stored(9, 9, 4))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:cut])
    with pytest.raises(ImageError, match=r"not a complete .npy file"):
        read_image(tmp_path / "a.npy")


@pytest.mark.parametrize("channels", [2, 6, 13])
def test_a_network_of_other_channels_becomes_a_bundle_and_int8(tmp_path: Path, channels: int) -> None:
    import eightfold as ef

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(channels, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    ).eval()
    for index in range(4):
        np.save(tmp_path / f"{index}.npy", stored(20, 24, channels, "uint16", seed=index))
    preprocess = Preprocess(height=16, width=16, channels=channels, pixels="uint16", scale=1 / 4095)
    ef.export_bundle(model, tmp_path / "bundle", preprocess=preprocess, images=tmp_path)
    image = np.load(tmp_path / "1.npy")
    with ef.Predictor(tmp_path / "bundle") as predictor:
        with torch.no_grad():
            answer = model(torch.from_numpy(preprocess.reference(image)[None])).numpy()
        for found in predictor.predict([tmp_path / "1.npy", image]):
            np.testing.assert_allclose(next(iter(found.arrays.values())), answer[0], atol=1e-3)
    onnx_path = next((tmp_path / "bundle" / "onnx").glob("*.onnx"))
    ranges = ef.calibrate(onnx_path, tmp_path, preprocess)
    _, report = ef.quantize(
        onnx_path, ranges, tmp_path / "int8.onnx", form="qdq", images=tmp_path, preprocess=preprocess
    )
    assert report.quantized
