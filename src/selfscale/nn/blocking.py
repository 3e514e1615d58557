"""Run a chain on blocks of pixels: the same weights and results, in more channels and so in fewer idle lanes.

A processor multiplies 16 floats at once, and a layer of five filters uses five of them. Where a block of
2x2 pixels is one position of four times the channels (space to depth), a kernel of k x k, c -> f becomes
one over blocks, 4 c -> 4 f: an arrangement of the same weights and zeros, through which gradients flow
back. "Same" padding stays the same, since the zeros around the blocks are those around the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from selfscale.errors import UserError
from selfscale.nn.block_shape import PLAIN, arrangement, best_shape, problem
from selfscale.nn.fcn import blocks as stages_of

_allowed = True


def allow(allowed: bool) -> None:
    """Run chains on blocks in this process, or do not; what is compiled already stays as it is."""
    global _allowed
    _allowed = allowed


class Chain:
    """A chain as a function of blocks of pixels, or of images if these are faster or the only way.

    Attributes:
        shape: Of the blocks; 1x1: the chain runs on images.
        reason: Why it has to, or None.

    Args:
        model: Chain of plain layers; any other model runs on images.
        size: Height and width of the images; None: any, see `on_images`.
    """

    def __init__(self, model: keras.Model, size: Sequence[int | None] = (None, None)) -> None:
        self.model, self.shape = model, PLAIN
        self.reason: str | None = None
        try:
            self.stages = stages_of(model)
            self.reason = problem(self.stages)
        except UserError as error:
            self.stages, self.reason = [], str(error)
        if not _allowed:
            self.reason = "execution.blocks is false"
        elif tf.config.list_physical_devices("GPU"):
            self.reason = "on a GPU nobody has measured whether blocks are faster"
        if self.reason is None:
            self.shape = best_shape(self.stages, size)

    def __str__(self) -> str:
        if self.shape != PLAIN:
            return f"runs on blocks of {self.shape} pixels"
        return f"runs on images: {self.reason or 'blocks of pixels need no fewer multiplications'}"

    def to_blocks(self, images: tf.Tensor) -> tf.Tensor:
        """Convert (..., H, W, C) to (..., H / rows, W / columns, rows * columns * C)."""
        if self.shape == PLAIN:
            return images
        *outer, height, width, channels = _sizes(images)
        rows, columns = self.shape
        split = tf.reshape(images, (*outer, height // rows, rows, width // columns, columns, channels))
        return tf.reshape(
            _swapped(split), (*outer, height // rows, width // columns, rows * columns * channels)
        )

    def to_images(self, blocks: tf.Tensor) -> tf.Tensor:
        """Convert (..., H / rows, W / columns, rows * columns * C) to (..., H, W, C)."""
        if self.shape == PLAIN:
            return blocks
        *outer, height, width, channels = _sizes(blocks)
        rows, columns = self.shape
        split = tf.reshape(blocks, (*outer, height, width, rows, columns, channels // (rows * columns)))
        return tf.reshape(
            _swapped(split), (*outer, height * rows, width * columns, channels // (rows * columns))
        )

    def __call__(
        self,
        blocks: tf.Tensor,
        training: bool = False,
        *,
        gates: Sequence[tf.Tensor] | None = None,
        hidden: list[tf.Tensor] | None = None,
        inside: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Run the chain on blocks; returns blocks.

        Args:
            gates: Factors of the filters of each layer but the last.
            hidden: A list, to which each layer's output before its gate is added; needs `gates`.
            inside: 1 for the pixels of a block that are the image's, 0 for those that pad it;
                (1, H / rows, W / columns, rows * columns).
        """
        if self.shape == PLAIN and gates is None:
            return self.model(blocks, training=training)
        x = blocks
        for stage, gate in zip(self.stages, (None, *(gates or [None] * (len(self.stages) - 1))), strict=True):
            if inside is not None:  # zeros again, as those that pad images
                x *= tf.repeat(inside, stage.convolution.kernel.shape[2], axis=-1)
            x = self._convolve(stage.convolution, x, gate)
            for layer in stage.followers:
                x = self._by_filter(layer, x, training)
            if hidden is not None:
                hidden.append(x)
        return x

    def on_whole_blocks(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Run the chain on images that consist of whole blocks; returns images."""
        return self.to_images(self(self.to_blocks(images), training))

    def on_images(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Run the chain on images of any size, padded inside to whole blocks; returns images."""
        _, height, width, _ = _sizes(images)
        missing = [-length % side for length, side in zip((height, width), self.shape, strict=True)]
        if not any(tf.is_tensor(length) or length for length in missing):
            return self.on_whole_blocks(images, training)
        below = ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0))
        inside = self.to_blocks(tf.pad(tf.ones((1, height, width, 1)), below))
        output = self(self.to_blocks(tf.pad(images, below)), training, inside=inside)
        return self.to_images(output)[:, :height, :width]

    def _convolve(self, layer: keras.layers.Conv2D, x: tf.Tensor, gate: tf.Tensor | None) -> tf.Tensor:
        """Apply a convolution to blocks, of which `gate` multiplies the channels that it reads."""
        kernel = tf.convert_to_tensor(layer.kernel)
        if gate is not None:  # far fewer products than on the activations
            kernel *= gate[:, None]
        pixels = self.shape.rows * self.shape.columns
        if pixels == 1:
            x = keras.ops.conv(x, kernel, layer.strides, layer.padding, dilation_rate=layer.dilation_rate)
        else:
            x = tf.nn.conv2d(x, self._blocked(layer, kernel), 1, "SAME")
        if layer.use_bias:
            x = tf.nn.bias_add(x, tf.tile(layer.bias, [pixels]))
        return layer.activation(x)

    def _blocked(self, layer: keras.layers.Conv2D, kernel: tf.Tensor) -> tf.Tensor:
        """Arrange a kernel (k, k, c, f) over blocks."""
        rows, columns = (
            arrangement(*axis)
            for axis in zip(layer.kernel_size, layer.dilation_rate, self.shape, strict=True)
        )
        # To (column of blocks, pixel read, written; row of blocks, pixel read, written; c, f)
        spread = tf.tensordot(columns, tf.tensordot(rows, kernel, ((3,), (0,))), ((3,), (3,)))
        c, f = kernel.shape[2:]
        pixels = self.shape.rows * self.shape.columns
        shape = (rows.shape[0], columns.shape[0], pixels * c, pixels * f)
        return tf.reshape(tf.transpose(spread, (3, 0, 4, 1, 6, 5, 2, 7)), shape)

    def _by_filter(self, layer: keras.layers.Layer, x: tf.Tensor, training: bool) -> tf.Tensor:
        """Apply a layer that treats filters one by one, and may have weights for each."""
        if self.shape == PLAIN:
            return layer(x, training=training)
        count, height, width, channels = _sizes(x)
        pixels = self.shape.rows * self.shape.columns
        filters = tf.reshape(x, (count, height, width * pixels, channels // pixels))
        return tf.reshape(layer(filters, training=training), (count, height, width, channels))


def _sizes(x: tf.Tensor) -> list[int | tf.Tensor]:
    """Return the lengths of all axes, as numbers where they are known while tracing."""
    return [tf.shape(x)[axis] if length is None else length for axis, length in enumerate(x.shape)]


def _swapped(x: tf.Tensor) -> tf.Tensor:
    """Swap the two axes in the middle of the last five."""
    axes = list(range(len(x.shape)))
    axes[-4], axes[-3] = axes[-3], axes[-4]
    return tf.transpose(x, axes)
