"""How pixels become inputs, and pictures in folders."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from graphprune.calibration.data import load_batches
from graphprune.calibration.preprocess import PRESETS, Preprocess, parse_preprocess
from graphprune.errors import ModelError, UsageError
from graphprune.sample_inputs import InputSpec


def spec(*dims: int | str | None, dtype: str = "float32") -> list[InputSpec]:
    return [InputSpec("images", np.dtype(dtype), dims)]


def test_specs_are_presets_values_or_both() -> None:
    assert parse_preprocess("imagenet") is PRESETS["imagenet"]
    assert parse_preprocess("scale=1/255,mean=0.5,std=0.25:0.5:1,order=bgr,size=32x48,fit=stretch") == Preprocess(
        1 / 255, (0.5,), (0.25, 0.5, 1.0), "bgr", size=(32, 48), fit="stretch"
    )
    assert parse_preprocess("raw,size=64").size == (64, 64)


@pytest.mark.parametrize("text", ["image", "scale=0", "mean=a:b", "std=0", "order=rbg", "size=0x3", "margin=2", "x=1"])
def test_specs_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--preprocess"):
        parse_preprocess(text)


def test_numbers_are_scaled_and_channels_normalised() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(1, 3, 1, 2) * 51
    how = parse_preprocess("scale=1/51,mean=1:2:3,std=1:2:4")
    assert how.apply(pixels, 1).tolist() == [[[[-1, 0]], [[0, 0.5]], [[0.25, 0.5]]]]
    blue_first = parse_preprocess("scale=1/51,order=bgr")
    assert blue_first.apply(pixels, 1).ravel().tolist() == [4, 5, 2, 3, 0, 1]
    with pytest.raises(UsageError, match="mean has 2 values and images have 3 channels"):
        parse_preprocess("mean=1:2").apply(pixels, 1)


def test_arrays_of_pixels_are_prepared_where_that_is_asked_for() -> None:
    pixels = np.full((2, 3, 8, 8), 255, np.uint8)
    batches = load_batches(pixels, spec("N", 3, 8, 8), preprocess="symmetric")
    assert np.allclose(batches.feeds[0]["images"], 1)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two red pictures and two blue ones, wider than high, with a white edge left and right."""
    image = pytest.importorskip("PIL.Image")
    for index, colour in enumerate(((200, 0, 0), (200, 0, 0), (0, 0, 200), (0, 0, 200))):
        folder = tmp_path / ("red" if colour[0] else "blue")
        folder.mkdir(exist_ok=True)
        picture = image.new("RGB", (48, 24), (255, 255, 255))
        picture.paste(colour, (12, 0, 36, 24))
        picture.save(folder / f"{index}.png")
    return tmp_path


def test_pictures_are_cropped_and_labelled_by_their_folders(pictures: Path) -> None:
    batches = load_batches(pictures, spec("N", 3, 12, 12), preprocess="unit")
    images = batches.feeds[0]["images"]
    assert batches.targets is not None
    assert sorted(batches.targets[0].tolist()) == [0, 0, 1, 1]
    assert "classes are numbered 0 to 1 in the order of the folders' names" in batches.notes[0]
    for image, label in zip(images, batches.targets[0], strict=True):
        assert np.allclose(image[0 if label else 2], 200 / 255, atol=1e-3)  # the centre alone, no edge
        assert np.allclose(image[1], 0, atol=1e-3)


def test_pictures_of_all_layouts_and_types(pictures: Path) -> None:
    last = load_batches(pictures, spec(1, 12, 24, 3), preprocess="unit,fit=stretch").feeds
    assert [feed["images"].shape for feed in last] == [(1, 12, 24, 3)] * 4
    assert last[0]["images"][0, :, 0].min() == 1  # stretched, so that the edge is there
    grey = load_batches(pictures, spec("N", 1, 12, 12)).feeds[0]["images"]
    assert grey.shape == (4, 1, 12, 12)
    raw = load_batches(pictures, spec("N", 3, 12, 12, dtype="uint8")).feeds[0]["images"]
    assert (raw.dtype, raw.max()) == (np.uint8, 200)
    assert load_batches(pictures, spec("N", 3, "H", "W")).feeds[0]["images"].shape == (4, 3, 24, 48)


def test_preprocessing_that_nobody_gave_is_said(pictures: Path) -> None:
    assert "pixels are scaled to 0..1" in load_batches(pictures, spec("N", 3, 12, 12)).notes[-1]


def test_pictures_that_cannot_be_used(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="size=9x9, and the model takes 12x12"):
        load_batches(pictures, spec("N", 3, 12, 12), preprocess="unit,size=9")
    with pytest.raises(UsageError, match="has 5 channels: pictures have 1, 3 or 4"):
        load_batches(pictures, spec("N", 5, 12, 12))
    with pytest.raises(UsageError, match="pictures feed a model of one image input; this one takes 'images'"):
        load_batches(pictures, spec("N", 3))
    (pictures / "red" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ModelError, match=r"red/0.png: cannot be read as a picture .*; remove it or replace it"):
        load_batches(pictures, spec("N", 3, 12, 12))
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ModelError, match=r"pip install 'graphprune\[images\]'"):
        load_batches(pictures, spec("N", 3, 12, 12))
