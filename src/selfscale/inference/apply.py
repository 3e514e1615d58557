"""Apply a network to images of any size; memory is bounded by the largest image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isqrt
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from selfscale.data.decoding import Unusable
from selfscale.files import write_bytes
from selfscale.inference import image_files, tiling
from selfscale.inference.image_files import ImageFile
from selfscale.nn.blocking import Chain
from selfscale.nn.fcn import blocks, to_image

# A tile's activations: so many values in the widest layer (64 MiB), and no more than this on a side.
VALUES, SIDE = 2**24, 1024
UNTILED = 4_000_000  # pixels of an image that cannot be cut into tiles


class Application:
    """A chain of plain layers as a function from images to images, both uint8 (H, W).

    Equals `to_image` of the network's output for the whole image divided by 255, however large the image
    is (see `tiling`).

    Raises:
        UserError: The model is no chain of plain layers.
    """

    def __init__(self, model: keras.Model) -> None:
        self._field = tiling.receptive_field(model)
        self._side = min(SIDE, isqrt(VALUES // max(block.filters for block in blocks(model))))
        if self._field:
            # At least half of a tile is what it is computed for.
            self._side = max(self._side, 2 * max(axis.before + axis.after for axis in self._field))
        signature = [tf.TensorSpec((1, None, None, 1), tf.float32)]
        self._chain = Chain(model)
        # Padding costs a pass over all activations: none for what consists of whole blocks.
        runs = {True: self._chain.on_whole_blocks, False: self._chain.on_images}
        self._run = {whole: tf.function(run, input_signature=signature) for whole, run in runs.items()}

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Raise Unusable if the image is too small for the network, or too large for one without tiles."""
        height, width = image.shape
        if self._field is None:
            if height * width > UNTILED:
                raise Unusable(
                    f"too large: {width}x{height} pixels; this network changes the resolution, so it cannot "
                    f"be applied in tiles, and not to more than {UNTILED} pixels"
                )
            return self._whole(image)
        if any(length <= axis.lost for length, axis in zip(image.shape, self._field, strict=True)):
            raise Unusable(f"too small: {width}x{height} pixels")
        return tiling.tiled(self._whole, image, self._field, self._side)

    def _whole(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        whole = not np.any(np.mod(image.shape, self._chain.shape))
        return to_image(self._run[whole](image[None, ..., None] / np.float32(255)).numpy())[0, ..., 0]


def apply_to_files(model: keras.Model, files: Sequence[ImageFile], out: Path) -> Iterator[str | None]:
    """Write `out/NAME.png`, 8 bits gray, for each file; yield in one line why it was skipped, or None.

    A file is written whole or not at all; one that was there before is replaced.

    Raises:
        UserError: The model is no chain of plain layers.
    """
    application = Application(model)

    def write(gray: NDArray[np.uint8], file: ImageFile, target: Path) -> None:
        write_bytes(target, image_files.gray_png(application(gray)))

    targets = [out / file.name.with_name(f"{file.name.name}.png") for file in files]
    yield from image_files.process(files, targets, write)
