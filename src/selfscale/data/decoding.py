"""From the bytes of an image file to gray crops."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from selfscale.errors import reason

Gray = NDArray[np.uint8]

# Named one by one: others, such as EPS, would start programs that a file of photographs never needs.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")

# What Pillow's decoders raise on files that are broken.
BROKEN = (
    EOFError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

SCALES = (1.0, 1.5, 2.0)  # by which a photograph is made smaller before it is cut into tiles

STRIP = 1024  # rows that are converted at once: conversions hold several copies


class Unusable(Exception):
    """A single image that cannot be used; the message is the reason."""


class Crop(NamedTuple):
    """Where a crop lies in its photograph, in pixels, after the photograph was made `scale` times smaller."""

    scale: float
    top: int
    left: int


Crops = list[tuple[Crop, Gray]]
Cropping = Callable[[Gray, int], Crops]


def decode_gray(content: bytes, most: int | None = None, formats: tuple[str, ...] = FORMATS) -> Gray:
    """The image of an encoded file as gray values, uint8 of shape H,W, upright.

    Gray is the luma of ITU-R 601-2, (299 R + 587 G + 114 B) / 1000, whatever the source. The EXIF
    orientation is applied; of an animation the first frame counts; what is transparent is seen on
    white, as on a page. 16 bits become 8 by the full range: gray is divided by 257 and rounded, of
    colour Pillow keeps the upper byte. Raises Unusable with the reason; also, before anything is decoded,
    if the image has more than `most` pixels. `formats` are names of Pillow's.
    """
    return _decoded(content, _gray, most, formats)


def decode_deep(content: bytes) -> NDArray[np.uint16]:
    """As `decode_gray`, but from 0 to 65535: 16 bits stay as they are, 8 bits are multiplied by 257."""
    return _decoded(content, _deep)


def _decoded(
    content: bytes,
    convert: Callable[[Image.Image], NDArray[Any]],
    most: int | None = None,
    formats: tuple[str, ...] = FORMATS,
) -> NDArray[Any]:
    try:
        with warnings.catch_warnings():
            # Pillow warns above 89 megapixels, and refuses above 179.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=formats)
            if most is not None and image.width * image.height > most:
                raise Unusable(f"too large: {image.width}x{image.height} pixels; at most {most} can be used")
            if isinstance(image, TiffImagePlugin.TiffImageFile) and planar(image):
                raise Unusable("16-bit channels in separate planes are read wrongly; save it interleaved")
            ImageOps.exif_transpose(image, in_place=True)
            width, height = image.size
            tops = range(0, height, STRIP)
            strips = (image.crop((0, top, width, min(top + STRIP, height))) for top in tops)
            return np.concatenate([convert(strip) for strip in strips])
    except UnidentifiedImageError:
        # Pillow's own message holds a memory address.
        names = f"{', '.join(formats[:-1])} or {formats[-1]}".replace("WEBP", "WebP")
        raise Unusable(f"broken: not a {names} image that can be read") from None
    except Image.DecompressionBombError as error:
        raise Unusable(f"too large: {error}") from error
    except BROKEN as error:
        raise Unusable(f"broken: {reason(error)}") from error


def planar(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether it has several 16-bit channels, one behind the other, of which Pillow takes other bytes."""
    bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, ())
    separate = image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2
    return separate and len(bits) > 1 and max(bits) > 8


def _gray(image: Image.Image) -> Gray:
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return ((wide + 128) // 257).astype(np.uint8)
    if image.mode in ("I", "F"):
        raise Unusable("32-bit pixels: the range of their values is not known; save it with 8 or 16 bits")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    if image.mode != "L":
        image = image.convert("RGB").convert("L")
    return np.array(image)


def _deep(image: Image.Image) -> NDArray[np.uint16]:
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    return _gray(image).astype(np.uint16) * 257


def centre_crop(gray: Gray, size: int) -> Crops:
    """The size x size pixels in the middle (thesis 2.1), or nothing if the image is smaller."""
    height, width = gray.shape
    if height < size or width < size:
        return []
    top, left = (height - size) // 2, (width - size) // 2
    return [(Crop(1.0, top, left), gray[top : top + size, left : left + size])]


def tiles(gray: Gray, size: int) -> Crops:
    """All size x size tiles of a centred grid without overlap, at each of the scales.

    Smaller pixels are means over areas, which leaves no aliasing worth speaking of.
    """
    return [crop for scale in SCALES for crop in _grid(gray, size, scale)]


def _grid(gray: Gray, size: int, scale: float) -> Crops:
    height, width = (max(1, int(side / scale)) for side in gray.shape)
    smaller = Image.fromarray(gray.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    gray = np.rint(np.asarray(smaller)).astype(np.uint8)
    first_top, first_left = (height % size) // 2, (width % size) // 2
    return [
        (Crop(scale, top, left), gray[top : top + size, left : left + size])
        for top in range(first_top, height - size + 1, size)
        for left in range(first_left, width - size + 1, size)
    ]
