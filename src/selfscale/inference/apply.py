"""A network applied to image files of any size; memory is bounded by the largest image."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from math import isqrt
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from selfscale.data.decoding import Unusable, decode_gray
from selfscale.files import write_bytes
from selfscale.inference import picture_files, tiling
from selfscale.inference.picture_files import READABLE, Picture
from selfscale.nn.fcn import blocks, to_image

LARGEST = 100_000_000  # pixels of an image
# A tile's activations: so many values in the widest layer (64 MiB), and no more than this on a side.
VALUES, SIDE = 2**24, 1024
UNTILED = 4_000_000  # pixels of an image that cannot be cut into tiles


class Application:
    """A chain of plain layers as a function from images to images, both uint8 of shape H,W.

    The same as `to_image` of the network's output for the whole image divided by 255, however large the
    image is (see `tiling`).

    Raises:
        UserError: the model is no chain of plain layers.
    """

    def __init__(self, model: keras.Model) -> None:
        self._reach = tiling.reach(model)
        self._side = min(SIDE, isqrt(VALUES // max(block.filters for block in blocks(model))))
        if self._reach:
            # At least half of a tile is what it is computed for.
            self._side = max(self._side, 2 * max(axis.before + axis.after for axis in self._reach))
        signature = [tf.TensorSpec((1, None, None, 1), tf.float32)]
        self._run = tf.function(lambda images: model(images, training=False), input_signature=signature)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Raises Unusable if the image is too small for the network, or too large for one without tiles."""
        height, width = image.shape
        if self._reach is None:
            if height * width > UNTILED:
                raise Unusable(
                    f"too large: {width}x{height} pixels; this network changes the resolution, so it cannot "
                    f"be applied in tiles, and not to more than {UNTILED} pixels"
                )
            return self._whole(image)
        if any(length <= axis.lost for length, axis in zip(image.shape, self._reach, strict=True)):
            raise Unusable(f"too small: {width}x{height} pixels")
        return tiling.tiled(self._whole, image, self._reach, self._side)

    def _whole(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return to_image(self._run(image[None, ..., None] / np.float32(255)).numpy())[0, ..., 0]


def apply_to_files(model: keras.Model, pictures: Sequence[Picture], out: Path) -> Iterator[str | None]:
    """Write `out/NAME.png`, 8 bits gray, for each picture; yields for each why it was skipped, in one line.

    A picture is written whole or not at all; what was there before is replaced.

    Raises:
        UserError: the model is no chain of plain layers.
    """
    application = Application(model)
    targets = [out / picture.name.with_name(f"{picture.name.name}.png") for picture in pictures]
    for picture, target, problem in zip(
        pictures, targets, picture_files.problems(pictures, targets), strict=True
    ):
        yield problem or apply_to_file(application, picture.path, target)


def apply_to_file(application: Application, path: Path, target: Path) -> str | None:
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"{path}: skipped: unreadable: {error.strerror}"
    try:
        result = application(decode_gray(content, LARGEST, READABLE))
    except Unusable as error:
        return f"{path}: skipped: {error}"
    written = io.BytesIO()
    Image.fromarray(result).save(written, "png")
    write_bytes(target, written.getvalue())
    return None
