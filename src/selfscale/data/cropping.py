"""From the pixels of a photograph to crops."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from selfscale.data.decoding import Gray

SCALES = (1.0, 1.5, 2.0)  # by which a photograph is made smaller before it is cut into tiles


class Crop(NamedTuple):
    """Where a crop lies in its photograph, in pixels, after the photograph was made `scale` times smaller."""

    scale: float
    top: int
    left: int


Crops = list[tuple[Crop, Gray]]
Cropping = Callable[[Gray, int], Crops]


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
