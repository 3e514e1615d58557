from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from selfscale.data.decoding import Unusable, centre_crop, decode_deep, decode_gray, tiles

COLOURS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
# ITU-R 601-2, in floats.
LUMA = COLOURS @ np.array([0.299, 0.587, 0.114])


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_colour_becomes_luma(kind: str, options: dict[str, object]) -> None:
    gray = decode_gray(encoded(Image.fromarray(COLOURS), kind, **options))
    assert gray.dtype == np.uint8
    assert np.abs(gray - LUMA).max() <= 0.51


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_colour_becomes_luma_nearly(kind: str) -> None:
    smooth = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (64, 64, 3))
    gray = decode_gray(encoded(Image.fromarray(smooth.copy()), kind, quality=95))
    assert np.abs(gray.astype(int) - smooth[..., 0]).max() <= 4


def test_gray_stays_as_it_is() -> None:
    np.testing.assert_array_equal(decode_gray(encoded(Image.fromarray(COLOURS[..., 0]))), COLOURS[..., 0])


def test_deep_gray_keeps_sixteen_bits_and_widens_eight() -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (9, 7), dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode_deep(encoded(Image.fromarray(wide), kind)), wide)
    for image in (Image.fromarray(COLOURS), Image.fromarray(COLOURS[..., 0])):
        found = decode_deep(encoded(image))
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, decode_gray(encoded(image)).astype(int) * 257)
    with pytest.raises(Unusable, match="broken"):
        decode_deep(b"")


def test_palette_and_bits() -> None:
    palette = Image.fromarray(COLOURS).quantize(16)
    expected = np.asarray(palette.convert("RGB")) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode_gray(encoded(palette)) - expected).max() <= 0.51
    bits = COLOURS[..., 0] > 127
    np.testing.assert_array_equal(decode_gray(encoded(Image.fromarray(bits))), bits * np.uint8(255))


def test_cmyk() -> None:
    assert decode_gray(encoded(Image.new("CMYK", (4, 4), (0, 0, 0, 0)), "TIFF")).min() == 255
    assert decode_gray(encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG")).max() <= 3
    assert abs(int(decode_gray(encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"))[0, 0]) - 76) <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_uses_the_full_range(kind: str) -> None:
    wide = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], np.uint16)
    gray = decode_gray(encoded(Image.fromarray(wide), kind))
    np.testing.assert_array_equal(gray, np.round(wide / 65535 * 255).astype(np.uint8))
    np.testing.assert_array_equal(gray[0, [0, -1]], [0, 255])


def test_sixteen_bit_colour_is_within_a_level() -> None:
    wide = (COLOURS.astype(np.uint16) * 257) ^ 5
    file = io.BytesIO()
    tifffile.imwrite(file, wide, photometric="rgb")
    expected = wide / 257 @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode_gray(file.getvalue()) - expected).max() <= 1.5


def test_transparent_is_seen_on_white() -> None:
    alpha = np.full((2, 3), 255, np.uint8)
    alpha[0] = (0, 128, 255)
    black = np.dstack([np.zeros((2, 3, 3), np.uint8), alpha])
    np.testing.assert_array_equal(decode_gray(encoded(Image.fromarray(black))), 255 - alpha)
    gray_alpha = np.dstack([np.zeros((2, 3), np.uint8), alpha])
    np.testing.assert_array_equal(decode_gray(encoded(Image.fromarray(gray_alpha))), 255 - alpha)
    palette = Image.fromarray(np.array([[0, 1]], np.uint8))
    palette.putpalette([0, 0, 0, 0, 0, 0])
    assert decode_gray(encoded(palette, transparency=0)).tolist() == [[255, 0]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    image = np.zeros((16, 32), np.uint8)
    image[:, 16:] = 255
    gray = decode_gray(encoded(Image.fromarray(image), kind, exif=exif))
    assert gray.shape == (32, 16)
    assert gray[:12].max() < 20 and gray[20:].min() > 235


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), (level, level, level)) for level in (10, 200)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert abs(int(decode_gray(content)[0, 0]) - 10) <= 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "broken: not a PNG, JPEG, TIFF, BMP or WebP image that can be read"),
        (b"no image", "broken: not a PNG, JPEG, TIFF, BMP or WebP image that can be read"),
        (encoded(Image.fromarray(COLOURS), "GIF"), "broken: not a PNG"),
        (encoded(Image.fromarray(COLOURS), "JPEG")[:-40], "broken: image file is truncated"),
        (encoded(Image.fromarray(COLOURS))[:-60], "broken: "),
        (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "32-bit pixels"),
        (encoded(Image.fromarray(np.zeros((4, 4), np.int32)), "TIFF"), "32-bit pixels"),
    ],
)
def test_reasons(content: bytes, reason: str) -> None:
    with pytest.raises(Unusable) as error:
        decode_gray(content)
    assert str(error.value).startswith(reason)
    assert "0x" not in str(error.value)  # a memory address would differ from run to run


def test_decompression_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Unusable, match="decompression bomb"):
        decode_gray(encoded(Image.fromarray(COLOURS)))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "TIFF", "BMP", "WEBP"]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_files_are_images_or_unusable(kind: str, damage: list[tuple[int, int]]) -> None:
    content = bytearray(encoded(Image.fromarray(COLOURS), kind))
    for place, value in damage:
        content[place % len(content)] = value
    try:
        gray = decode_gray(bytes(content))
    except Unusable:
        return
    assert gray.dtype == np.uint8 and gray.ndim == 2


def test_centre_crop() -> None:
    image = np.arange(7 * 10, dtype=np.uint8).reshape(7, 10)
    [(crop, pixels)] = centre_crop(image, 4)
    assert crop == (1, 1, 3)
    np.testing.assert_array_equal(pixels, image[1:5, 3:7])
    assert centre_crop(image, 8) == []
    [(_, whole)] = centre_crop(image[:7, :7], 7)
    np.testing.assert_array_equal(whole, image[:7, :7])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(4, 20))
def test_tiles_do_not_overlap_and_are_centred(height: int, width: int, size: int) -> None:
    image = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width), dtype=np.uint8)
    covered = np.zeros(image.shape, int)
    full = [(crop, pixels) for crop, pixels in tiles(image, size) if crop.scale == 1]
    assert len(full) == (height // size) * (width // size)
    for (_, top, left), pixels in full:
        np.testing.assert_array_equal(pixels, image[top : top + size, left : left + size])
        covered[top : top + size, left : left + size] += 1
    assert covered.max() <= 1
    if full:
        rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
        assert abs(rows[0] - (height - 1 - rows[-1])) <= 1
        assert abs(columns[0] - (width - 1 - columns[-1])) <= 1


def test_half_size_tiles_are_means_of_four_pixels() -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 48), dtype=np.uint8)
    means = image.reshape(20, 2, 24, 2).mean(axis=(1, 3))
    half = [(crop, pixels) for crop, pixels in tiles(image, 16) if crop.scale == 2]
    assert [crop for crop, _ in half] == [(2, 2, 4)]
    assert np.abs(half[0][1] - means[2:18, 4:20]).max() <= 0.5


def test_16_bit_channels_in_separate_planes_are_refused_as_pillow_reads_them_wrongly():
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype("uint16")
    for layout, values in (("separate", np.moveaxis(pixels, -1, 0)), ("contig", pixels)):
        file = io.BytesIO()
        tifffile.imwrite(file, values, photometric="rgb", planarconfig=layout)
        if layout == "separate":
            with pytest.raises(Unusable, match="separate planes are read wrongly; save it interleaved"):
                decode_gray(file.getvalue())
        else:
            expected = np.asarray(Image.fromarray((pixels >> 8).astype("uint8")).convert("L"))
            np.testing.assert_array_equal(decode_gray(file.getvalue()), expected)
