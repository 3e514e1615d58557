from __future__ import annotations

import io
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from selfscale import files
from selfscale.data.decoding import Unusable, decode_gray
from selfscale.inference import apply as applying
from selfscale.inference.apply import Application, apply_to_files
from selfscale.inference.image_files import READABLE, ImageFile, find
from selfscale.nn.fcn import build, to_image

MODEL = build([3, 2], kernel=3, deviation=0.4, seed=(1,))
# ITU-R 601-2 luma of a 40x30 picture, in which every orientation looks different.
COLOURS = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def expected(gray, model=MODEL):
    return to_image(np.asarray(model(gray[None, ..., None] / np.float32(255))))[0, ..., 0]


def run(folder: Path, model=MODEL) -> list[str | None]:
    return list(apply_to_files(model, find([str(folder)], folder / "out"), folder / "out"))


def save(folder: Path, name: str, image: Image.Image, **options) -> None:
    image.save(folder / name, **options)


@pytest.mark.parametrize("shape", [(1, 1), (300, 7), (130, 257)])
def test_any_size_is_the_untiled_output_as_a_picture(shape, monkeypatch):
    monkeypatch.setattr(applying, "SIDE", 64)
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    result = Application(MODEL)(image)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, expected(image))


def test_a_tile_is_at_least_twice_what_is_cut_off(monkeypatch):
    monkeypatch.setattr(applying, "SIDE", 2)
    image = np.random.default_rng(1).integers(0, 256, (40, 50), np.uint8)
    np.testing.assert_array_equal(Application(MODEL)(image), expected(image))


def test_every_kind_of_image_file(tmp_path):
    colour = Image.fromarray(COLOURS)
    alpha = colour.copy()
    alpha.putalpha(Image.fromarray(COLOURS[..., 0]))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    save(tmp_path, "colour.png", colour)
    save(tmp_path, "gray.tif", colour.convert("L"))
    save(tmp_path, "wide.png", Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257))
    save(tmp_path, "cmyk.jpg", colour.convert("CMYK"))
    save(tmp_path, "palette.png", colour.quantize(16))
    save(tmp_path, "alpha.png", alpha)
    save(tmp_path, "turned.jpg", colour, exif=exif)
    save(tmp_path, "moving.webp", colour, save_all=True, append_images=[Image.new("RGB", (30, 40))])
    save(tmp_path, "few.gif", colour, save_all=True, append_images=[Image.new("RGB", (30, 40))])
    assert run(tmp_path) == [None] * 9
    for path in tmp_path.glob("*.*"):
        gray = decode_gray(path.read_bytes(), formats=READABLE)
        with Image.open(tmp_path / "out" / f"{path.stem}.png") as result:
            assert (result.format, result.mode) == ("PNG", "L")
            np.testing.assert_array_equal(np.asarray(result), expected(gray))
            assert result.size == ((40, 30) if path.stem == "turned" else (30, 40))
    with Image.open(tmp_path / "out" / "wide.png") as result:
        np.testing.assert_array_equal(np.asarray(result), expected(COLOURS[..., 0]))


def test_what_is_broken_is_skipped_and_the_rest_is_done(tmp_path):
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, "png")
    (tmp_path / "cut.png").write_bytes(file.getvalue()[:-200])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "good.png").write_bytes(file.getvalue())
    (tmp_path / "good.jpg").write_bytes(file.getvalue())
    found = [problem for problem in run(tmp_path) if problem]
    assert [line.partition(": skipped: ")[0] for line in found] == [
        str(tmp_path / name) for name in ("cut.png", "good.png", "text.jpg")
    ]
    assert "good.png is already what becomes of" in found[1]
    assert not any("\n" in line for line in found)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]


def test_a_file_that_cannot_be_read_is_skipped(tmp_path):
    (problem,) = apply_to_files(MODEL, [ImageFile(tmp_path / "gone.png", Path("gone"))], tmp_path / "out")
    assert problem == f"{tmp_path / 'gone.png'}: skipped: unreadable: No such file or directory"


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (40_000, 40_000)])
def test_more_than_100_megapixels_are_refused_undecoded(tmp_path, width, height):
    # A header alone says the size; a decoder would fail on what is behind it.
    Image.new("1", (8, 8)).save(tmp_path / "large.png")
    content = bytearray((tmp_path / "large.png").read_bytes())
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "large.png").write_bytes(content)
    (problem,) = run(tmp_path)
    assert problem is not None and "too large" in problem


def test_an_output_is_whole_or_not_there(tmp_path, monkeypatch):
    save(tmp_path, "a.png", Image.fromarray(COLOURS))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"former")

    def dies(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert (tmp_path / "out" / "a.png").read_bytes() == b"former"
    assert run(tmp_path) == [None]
    assert (tmp_path / "out" / "a.png").read_bytes() != b"former"


def test_convolutions_without_padding():
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(1, 5, activation="relu")(inputs))
    image = np.random.default_rng(1).integers(0, 256, (9, 1030), np.uint8)
    result = Application(model)(image)
    assert result.shape == (5, 1026)
    np.testing.assert_array_equal(result, expected(image, model))
    with pytest.raises(Unusable, match="too small: 1030x4 pixels"):
        Application(model)(image[:4])


def test_a_network_that_changes_the_resolution_takes_small_images_only(monkeypatch):
    inputs = keras.Input((None, None, 1))
    x = keras.layers.UpSampling2D(2)(keras.layers.Conv2D(1, 3, strides=2, padding="same")(inputs))
    model = keras.Model(inputs, x)
    image = np.random.default_rng(1).integers(0, 256, (20, 30), np.uint8)
    np.testing.assert_array_equal(Application(model)(image), expected(image, model))
    monkeypatch.setattr(applying, "UNTILED", 599)
    with pytest.raises(Unusable, match="changes the resolution, so it cannot be applied in tiles"):
        Application(model)(image)


def halved_and_doubled() -> keras.Model:
    """Colour to colour, with a branch that fits images of even sides only."""
    inputs = keras.Input((None, None, 3))
    x = keras.layers.UpSampling2D()(
        keras.layers.MaxPooling2D()(keras.layers.Conv2D(3, 3, padding="same")(inputs))
    )
    return keras.Model(inputs, keras.layers.Add()([x, inputs]))


def test_colour_images_by_a_network_with_branches(tmp_path):
    rng = np.random.default_rng(1)
    for name, shape in (("even.png", (40, 30, 3)), ("gray.png", (8, 6)), ("odd.png", (7, 6, 3))):
        save(tmp_path, name, Image.fromarray(rng.integers(0, 256, shape, np.uint8)))
    model = halved_and_doubled()
    even, gray, odd = run(tmp_path, model)
    assert (even, gray) == (None, None)
    assert "skipped: 6x7 pixels are no size for this network" in odd
    for name in ("even.png", "gray.png"):
        with Image.open(tmp_path / name) as image, Image.open(tmp_path / "out" / name) as result:
            pixels = np.asarray(image.convert("RGB"))
            assert result.mode == "RGB"
            wanted = to_image(np.asarray(model(pixels[None] / np.float32(255))))[0]
            np.testing.assert_array_equal(np.asarray(result), wanted)


def test_colour_images_in_tiles(monkeypatch):
    monkeypatch.setattr(applying, "SIDE", 64)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 5, padding="same", activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(3, 3, padding="same")(x))
    image = np.random.default_rng(1).integers(0, 256, (130, 90, 3), np.uint8)
    wanted = to_image(np.asarray(model(image[None] / np.float32(255))))[0]
    difference = Application(model)(image).astype(int) - wanted
    assert np.abs(difference).max() <= 1  # rounded at half of a step, after another order of the sums
    assert (difference != 0).mean() < 1e-3
