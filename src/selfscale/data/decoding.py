"""From the bytes of an image file to its pixels."""

from __future__ import annotations

import io
import logging
import os
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from selfscale.errors import reason

Gray = NDArray[np.uint8]

logging.getLogger("PIL").addHandler(logging.NullHandler())  # its errors are raised, too

# Named one by one: others, such as EPS, would start programs that a file of photographs never needs.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")

# Of Pillow's modes, those that it turns into gray rightly.
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr")
# Of TIFF's kinds of colour: white is 0, black is 0, RGB, palette, inks, YCbCr.
PHOTOMETRIC = (0, 1, RGB := 2, 3, SEPARATED := 5, YCBCR := 6)
INK_SET, JPEG = 332, 7
LARGEST_FILE = 2**30  # bytes
DEEP = 65535  # white of 16 bits
STRIP = 1024  # rows that are converted at once: conversions hold several copies


class Unusable(Exception):
    """A single image that cannot be used; the message is the reason."""


def read_file(path: Path, offset: int = 0, length: int = -1) -> bytes:
    """The bytes of an image file, or a part of them; raises Unusable for what is none or cannot be read."""
    try:
        found = path.stat()  # before it is opened: a pipe would wait for its other end
        if not stat.S_ISREG(found.st_mode):
            raise Unusable("is not a file")
        if (found.st_size if length < 0 else length) > LARGEST_FILE:
            raise Unusable(f"too large: {found.st_size} bytes; at most {LARGEST_FILE} can be used")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise Unusable(f"unreadable: {error.strerror}") from error


def decode_gray(content: bytes, most: int | None = None, formats: tuple[str, ...] = FORMATS) -> Gray:
    """The image of an encoded file as gray values, uint8 of shape H,W, upright.

    Gray is the luma of ITU-R 601-2, (299 R + 587 G + 114 B) / 1000, whatever the source. The EXIF
    orientation is applied; of an animation the first frame counts; what is transparent is seen on
    white, as on a page. 16 bits become 8 by the full range: gray is divided by 257 and rounded, of
    colour Pillow keeps the upper byte. Raises Unusable with the reason; also, before anything is decoded,
    if the image has more than `most` pixels. `formats` are names of Pillow's.
    """
    return _decoded(content, _gray, most, formats)[0]


def decode_colour(content: bytes, most: int | None = None, formats: tuple[str, ...] = FORMATS) -> Gray:
    """As `decode_gray`, but red, green and blue: uint8 of shape H,W,3."""
    return _decoded(content, _colour, most, formats)[0]


def decode_deep(content: bytes) -> NDArray[np.uint16]:
    """As `decode_gray`, but from 0 to 65535: 16 bits stay as they are, 8 bits are multiplied by 257."""
    return _decoded(content, _deep)[0]


def gray_and_orientation(content: bytes) -> tuple[Gray, int]:
    """As `decode_gray`, with the EXIF orientation, 1 to 8, that was applied; 1 is upright."""
    return _decoded(content, _gray)


def deep_and_orientation(content: bytes) -> tuple[NDArray[np.uint16], int]:
    """As `decode_deep`, with the EXIF orientation, 1 to 8, that was applied; 1 is upright."""
    return _decoded(content, _deep)


def _decoded(
    content: bytes,
    convert: Callable[[Image.Image, tuple[int, int]], NDArray[Any]],
    most: int | None = None,
    formats: tuple[str, ...] = FORMATS,
) -> tuple[NDArray[Any], int]:
    try:
        with warnings.catch_warnings():
            # Pillow warns above 89 megapixels, and refuses above 179.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=formats)
            if most is not None and image.width * image.height > most:
                raise Unusable(f"too large: {image.width}x{image.height} pixels; at most {most} can be used")
            if problem := misread(image):
                raise Unusable(f"{problem}; save it as gray or RGB with 8 or 16 bits")
            span = span_of(image)
            _load(image)
            turned = image.getexif().get(ExifTags.Base.Orientation, 1)
            ImageOps.exif_transpose(image, in_place=True)
            return _by_strips(image, convert, span), turned if turned in range(1, 9) else 1
    except Unusable:
        raise
    except UnidentifiedImageError:
        # Pillow's own message holds a memory address.
        names = f"{', '.join(formats[:-1])} or {formats[-1]}".replace("WEBP", "WebP")
        raise Unusable(f"broken: not a {names} image that can be read") from None
    except Image.DecompressionBombError as error:
        raise Unusable(f"too large: {error}") from error
    except MemoryError as error:
        raise Unusable("too large for the memory") from error
    except Exception as error:  # whatever Pillow and its decoders raise on damaged bytes
        raise Unusable(f"broken: {reason(error)}") from error


def _by_strips(
    image: Image.Image, convert: Callable[[Image.Image, tuple[int, int]], NDArray[Any]], span: tuple[int, int]
) -> NDArray[Any]:
    width, height = image.size
    if height <= STRIP:
        return convert(image, span)
    strips = (image.crop((0, top, width, min(top + STRIP, height))) for top in range(0, height, STRIP))
    return np.concatenate([convert(strip, span) for strip in strips])


def _load(image: ImageFile.ImageFile) -> None:
    """Decode the pixels; raises Unusable, too, for damage that libtiff only prints before it reads on."""
    if sys.__stderr__ is None or not any(tile.codec_name == "libtiff" for tile in image.tile):
        image.load()
        return
    with tempfile.TemporaryFile() as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            image.load()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        said.seek(0)
        if line := said.readline().decode(errors="replace").strip():
            raise Unusable(f"broken: {line}")


def misread(image: Image.Image) -> str:
    """What Pillow would read wrongly in an image, without a word, or cannot show as gray; else empty."""
    if isinstance(image, TiffImagePlugin.TiffImageFile) and (problem := misread_tiff(image.tag_v2)):
        return problem
    if image.mode in ("I", "F"):
        return "32-bit pixels: the range of their values is not known"
    if image.mode not in MODES and not image.mode.startswith("I;16"):
        return f"colours of the kind {image.mode}"
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        return "CMYK without Adobe's mark: whether 0 or 255 is no ink is not known"
    if isinstance(image, PngImagePlugin.PngImageFile) and "transparency" in image.info and image.tile:
        raw = str(image.tile[0].args)  # Pillow spreads the pixels over 8 bits, but not the transparent value
        if raw == "RGB;16B":
            return "16-bit colours, one of them transparent"
        if raw in ("L;2", "L;4"):
            image.info["transparency"] *= 85 if raw == "L;2" else 17
    return ""


def misread_tiff(tags: Mapping[int, Any]) -> str:
    bits, kind = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)), tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
    photometric = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0)
    if set(kind) != {1} and max(bits) < 32:
        return "pixels that are signed or floating-point numbers: the range of their values is not known"
    if tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2 and len(bits) > 1 and max(bits) > 8:
        return "16-bit channels in separate planes"
    if photometric not in PHOTOMETRIC:
        return f"colours of the TIFF kind {photometric}"
    if photometric == YCBCR and tags.get(TiffImagePlugin.COMPRESSION) != JPEG:
        return "YCbCr colours that are not compressed as JPEG"
    if photometric == SEPARATED and tags.get(INK_SET, 1) != 1:
        return "inks other than CMYK"
    if photometric == RGB and len(bits) > 3 and TiffImagePlugin.EXTRASAMPLES not in tags:
        return "a fourth channel of unknown meaning"
    return ""


def span_of(image: Image.Image) -> tuple[int, int]:
    """The values of black and of white in an image of more than 8 bits."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0, DEEP
    most = 2 ** max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))) - 1
    white_is_zero = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    return (most, 0) if white_is_zero else (0, most)  # of fewer bits, Pillow itself turns the values


def _gray(image: Image.Image, span: tuple[int, int]) -> Gray:
    if image.mode.startswith("I;16"):
        wide = _deep(image, span).astype(np.uint32)
        return ((wide + 128) // 257).astype(np.uint8)
    image = _on_white(image)
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return np.array(image if image.mode == "L" else image.convert("L"))


def _colour(image: Image.Image, span: tuple[int, int]) -> Gray:
    if image.mode.startswith("I;16"):
        return np.repeat(_gray(image, span)[..., None], 3, axis=-1)
    return np.array(_on_white(image).convert("RGB"))


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    straight = image.convert("LA") if image.mode == "La" else image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), straight.convert("RGBA"))


def _deep(image: Image.Image, span: tuple[int, int]) -> NDArray[np.uint16]:
    if not image.mode.startswith("I;16"):
        return _gray(image, span).astype(np.uint16) * 257
    deep = np.asarray(image).astype(np.uint16)
    if span != (0, DEEP):
        deep = np.rint((deep - float(span[0])) * (DEEP / (span[1] - span[0]))).astype(np.uint16)
    if (clear := image.info.get("transparency")) is not None:  # a value that is transparent: white
        deep[deep == clear] = DEEP
    return deep
