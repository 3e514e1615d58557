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
from selfscale.errors import reason
from selfscale.files import write_bytes
from selfscale.inference import image_files, tiling
from selfscale.inference.image_files import ImageFile
from selfscale.nn.blocking import Chain
from selfscale.nn.fcn import blocks, to_image

# A tile's activations: so many values in the widest layer (64 MiB), and no more than this on a side.
VALUES, SIDE = 2**24, 1024
UNTILED = 4_000_000  # pixels of an image that cannot be cut into tiles


class Application:
    """A network as a function from images to images, uint8 (H, W) or, in colour, (H, W, 3).

    Equals `to_image` of the network's output for the whole image divided by 255, however large the image
    is (see `tiling`).
    """

    def __init__(self, model: keras.Model) -> None:
        self._field, self._side = tiling.receptive_field(model), SIDE
        if self._field:
            self._side = min(SIDE, isqrt(VALUES // max(block.filters for block in blocks(model))))
            # At least half of a tile is what it is computed for.
            self._side = max(self._side, 2 * max(axis.before + axis.after for axis in self._field))
        self.channels = model.input_shape[-1]
        signature = [tf.TensorSpec((1, None, None, self.channels), tf.float32)]
        self._chain = Chain(model)
        # Padding costs a pass over all activations: none for what consists of whole blocks.
        runs = {True: self._chain.on_whole_blocks, False: self._chain.on_images}
        self._run = {whole: tf.function(run, input_signature=signature) for whole, run in runs.items()}

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Raise Unusable if the image is too small for the network, or too large for one without tiles."""
        height, width = image.shape[:2]
        if self._field is None:
            if height * width > UNTILED:
                raise Unusable(
                    f"too large: {width}x{height} pixels; this network branches or changes the resolution, "
                    f"so it cannot be applied in tiles, and not to more than {UNTILED} pixels"
                )
            return self._whole(image)
        if any(length <= axis.lost for length, axis in zip((height, width), self._field, strict=True)):
            raise Unusable(f"too small: {width}x{height} pixels")
        return tiling.tiled(self._whole, image, self._field, self._side)

    def _whole(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        whole = not np.any(np.mod((height, width), self._chain.shape))
        pixels = image.reshape(1, height, width, self.channels) / np.float32(255)
        try:
            output = to_image(self._run[whole](pixels).numpy())[0]
        except tf.errors.InvalidArgumentError as error:  # branches that no longer fit each other, say
            raise Unusable(
                f"{width}x{height} pixels are no size for this network: {reason(error)}"
            ) from error
        return output[..., 0] if output.shape[-1] == 1 else output


def apply_to_files(model: keras.Model, files: Sequence[ImageFile], out: Path) -> Iterator[str | None]:
    """Write `out/NAME.png`, 8 bits a channel, for each file; yield in one line why it was skipped, or None.

    A file is written whole or not at all; one that was there before is replaced.
    """
    application = Application(model)

    def write(image: NDArray[np.uint8], file: ImageFile, target: Path) -> None:
        write_bytes(target, image_files.encode_png(application(image)))

    targets = [out / file.name.with_name(f"{file.name.name}.png") for file in files]
    yield from image_files.process(files, targets, write, application.channels)
