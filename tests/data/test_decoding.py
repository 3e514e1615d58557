from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from selfscale.data.decoding import Unusable, decode_deep, decode_gray, read_file

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


@pytest.mark.parametrize("compression", ["group4", "tiff_adobe_deflate"])
def test_what_libtiff_reads_on_after_is_refused(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(encoded(Image.fromarray(np.tri(64, dtype=bool)), "TIFF", compression=compression))
    assert decode_gray(bytes(content))[5, 3] == 255
    content[28:32] = b"\1\1\1\1"  # of the pixels, which begin at byte 8
    with pytest.raises(Unusable, match=r"^broken: "):
        decode_gray(bytes(content))
    assert capfd.readouterr() == ("", "")


RAMP = np.linspace(0, 65535, 15 * 20).round().astype(np.uint16).reshape(15, 20)
BYTES = (RAMP >> 8).astype(np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (15, 20, 3), dtype=np.uint8)


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def retagged(content: bytes, tag: int, value: int) -> bytes:
    """A TIFF file with another value of a tag: its pixels are not converted."""
    file = io.BytesIO(content)
    with tifffile.TiffFile(file, mode="r+b") as opened:
        opened.pages[0].tags[tag].overwrite(value)
    return file.getvalue()


def png(depth: int, kind: int, rows: list[bytes], width: int, clear: bytes) -> bytes:
    """A PNG file with a transparent value, as the specification says."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    head = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", head), (b"tRNS", clear), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_in_which_white_is_zero(byteorder: str) -> None:
    for pixels in (BYTES, RAMP):
        most = np.iinfo(pixels.dtype).max
        content = tiff(most - pixels, photometric="miniswhite", byteorder=byteorder)
        if (most, byteorder) == (65535, ">"):  # Pillow does not know these
            with pytest.raises(Unusable, match="not a PNG, JPEG, TIFF"):
                decode_deep(content)
            continue
        found = decode_deep(content)
        np.testing.assert_array_equal(found, pixels if most > 255 else pixels.astype(int) * 257)
        assert np.abs(decode_gray(content).astype(int) - RAMP / 257).max() <= 1
    bits = BYTES > 127
    content = retagged(tiff(bits, photometric="minisblack"), 262, 0)
    np.testing.assert_array_equal(decode_gray(content), np.where(bits, 0, 255))


def test_twelve_bits_use_their_full_range() -> None:
    """Two pixels in three bytes, the upper bits first."""
    values = np.arange(0, 4096, 39, dtype=np.uint16)[:100].reshape(5, 20)
    left, right = values[:, ::2], values[:, 1::2]
    packed = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], -1).astype(np.uint8)
    raw = tiff(np.zeros((5, 20), np.uint16), photometric="minisblack")
    with tifffile.TiffFile(io.BytesIO(raw)) as opened:
        place = opened.pages[0].dataoffsets[0]
    content = bytearray(retagged(retagged(raw, 258, 12), 279, packed.size))
    content[place : place + packed.size] = packed.tobytes()
    expected = np.rint(values * (65535 / 4095)).astype(np.uint16)
    np.testing.assert_array_equal(decode_deep(bytes(content)), expected)


def test_transparent_values_of_png_are_white() -> None:
    for depth in (1, 2, 4, 8, 16):
        most = 2**depth - 1
        values = np.array([0, most, most // 2, 0]) if depth > 1 else np.array([0, 1, 1, 0])
        if depth == 16:
            row = values.astype(">u2").tobytes()
        else:
            row = bytes(np.packbits([int(bit) for v in values for bit in f"{v:0{depth}b}"]))
        for clear in {0, most // 2}:
            expected = np.where(values == clear, 65535, np.rint(values * (65535 / most)))
            found = decode_deep(png(depth, 0, [row], 4, struct.pack(">H", clear)))[0]
            assert np.abs(found - expected).max() <= 128, (depth, clear)
    colours = png(8, 2, [bytes([1, 2, 3, 9, 9, 9])], 2, struct.pack(">HHH", 1, 2, 3))
    assert decode_gray(colours).tolist() == [[255, 9]]
    with pytest.raises(Unusable, match="16-bit colours, one of them transparent"):
        decode_gray(png(16, 2, [bytes(6)], 1, bytes(6)))


def test_associated_alpha_is_seen_on_white() -> None:
    """Colours that are stored multiplied by their alpha: what is seen is colour + 1 - alpha."""
    alpha = np.full((15, 20), 128, np.uint8)
    for colours, photometric in ((BYTES // 2, "minisblack"), (RGB // 2, "rgb")):
        content = tiff(np.dstack([colours, alpha]), photometric=photometric, extrasamples=["assocalpha"])
        luma = colours if colours.ndim == 2 else colours @ np.array([0.299, 0.587, 0.114])
        assert np.abs(decode_gray(content) - (luma + 127.0)).max() <= 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tiff(np.zeros((8, 8), np.int8), photometric="minisblack"), "signed or floating-point"),
        (tiff(np.zeros((8, 8), np.int16), photometric="minisblack"), "signed or floating-point"),
        (tiff(np.zeros((8, 8), np.float16), photometric="minisblack"), ""),
        (tiff(np.zeros((3, 8, 8), np.uint16), photometric="rgb", planarconfig="separate"), "separate planes"),
        (retagged(tiff(RGB, photometric="rgb"), 262, 6), "YCbCr"),
        (retagged(tiff(RGB, photometric="rgb"), 262, 8), "colours of the TIFF kind 8"),
        (retagged(tiff(np.dstack([RGB, BYTES]), photometric="separated"), 262, 2), "a fourth channel"),
        (encoded(Image.new("CMYK", (8, 8)), "JPEG").replace(b"Adobe", b"Adopt"), "CMYK without Adobe's mark"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(content: bytes, reason: str) -> None:
    for decode in (decode_gray, decode_deep):
        with pytest.raises(Unusable, match=reason):
            decode(content)


def test_deep_colours_keep_their_upper_byte() -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype("uint16")
    expected = np.asarray(Image.fromarray((pixels >> 8).astype("uint8")).convert("L"))
    np.testing.assert_array_equal(decode_gray(tiff(pixels, photometric="rgb")), expected)


@pytest.mark.parametrize("name", ["pipe", "folder", "sparse", "gone"])
def test_what_is_no_file_of_a_usable_size_is_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "pipe":
        os.mkfifo(path)
    elif name == "folder":
        path.mkdir()
    elif name == "sparse":
        with path.open("wb") as file:
            file.truncate(200 * 2**30)
    with pytest.raises(Unusable, match=r"is not a file|too large: 214748364800 bytes|No such file"):
        read_file(path)
