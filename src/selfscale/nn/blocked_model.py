"""Build a plain Keras model of built-in layers that runs on blocks of pixels, wherever it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import keras
import numpy as np

from selfscale.errors import UserError
from selfscale.nn.block_shape import Shape, arrangement, problem
from selfscale.nn.fcn import Block, blocks


def blocked_model(model: keras.Model, shape: Shape) -> keras.Model:
    """Return a model with the output of a chain for images of any size, but for rounding.

    Its first convolution reads pixels in strides and writes blocks, the others work on blocks; what they put
    out is rearranged to pixels, by a slower transposed convolution where the blocks are no squares. An image
    that is no whole number of blocks is padded inside; what lies beyond its border becomes zero again behind
    each layer, as "same" padding has it.

    Args:
        model: A chain that can run on blocks.
        shape: Of the blocks.

    Raises:
        UserError: It cannot; the message says why.
    """
    chain, pixels = blocks(model), prod(shape)
    if reason := problem(chain):
        raise UserError(reason)
    inputs = keras.Input(model.input_shape[1:], name=model.inputs[0].name)
    ones = keras.layers.Rescaling(0.0, 1.0, name="ones")(inputs[..., :1])
    ones = keras.layers.ZeroPadding2D([(0, side - 1) for side in shape], name="whole_blocks")(ones)
    x = inputs
    for number, block in enumerate(chain):
        if number:
            x = _multiplied(x, ones, shape, name=f"inside_{block.convolution.name}")
        x = _convolved(x, block, shape, reads_pixels=number == 0)
        for layer in block.followers:
            copy = type(layer).from_config(layer.get_config())
            x = copy(x)
            copy.set_weights([np.tile(weight, pixels) for weight in layer.get_weights()])
    filters = chain[-1].convolution.filters
    if shape.rows == shape.columns > 1:
        x = keras.ops.depth_to_space(x, shape.rows)
    else:
        pixel = np.eye(pixels * filters).reshape(*shape, filters, pixels * filters)
        x = _fixed(keras.layers.Conv2DTranspose, filters, shape, pixel, "pixels")(x)
    for axis, side in enumerate(shape, 1):
        if side > 1:  # as many rows and columns as the image has
            line = inputs[0, :, 0, 0] if axis == 1 else inputs[0, 0, :, 0]
            x = keras.ops.take(x, keras.ops.cumsum(keras.ops.ones_like(line, "int32")) - 1, axis)
    return keras.Model(inputs, x, name=model.name)


def _convolved(x: keras.KerasTensor, block: Block, shape: Shape, reads_pixels: bool) -> keras.KerasTensor:
    """Add a convolution, with its activation, to a model; the first one reads pixels."""
    convolution, pixels = block.convolution, prod(shape)
    kernel, *bias = (weight.numpy() for weight in convolution.weights)
    geometry = list(zip(convolution.kernel_size, convolution.dilation_rate, shape, strict=True))
    options = {
        "use_bias": convolution.use_bias,
        "activation": convolution.activation,
        "name": convolution.name,
    }
    if reads_pixels:
        rows, columns = (_reading(*axis) for axis in geometry)
        reach = [(length - 1) * dilation for length, dilation, _ in geometry]
        border = [(all // 2, all - all // 2 + side - 1) for all, side in zip(reach, shape, strict=True)]
        x = keras.layers.ZeroPadding2D(border, name="border")(x)
        spread = np.einsum("ayi,bxj,ijcf->abcyxf", rows, columns, kernel)
        options["strides"] = shape
    else:
        rows, columns = (arrangement(*axis) for axis in geometry)
        spread = np.einsum("Iayi,Jbxj,ijcf->IJabcyxf", rows, columns, kernel)
        options["padding"] = "same"
    layer = keras.layers.Conv2D(pixels * convolution.filters, (len(rows), len(columns)), **options)
    x = layer(x)
    layer.set_weights([spread.reshape(layer.kernel.shape), *(np.tile(one, pixels) for one in bias)])
    return x


def _reading(length: int, dilation: int, side: int) -> np.ndarray:
    """Return which weight joins a pixel that is read with a pixel of the block that is written."""
    read, written, position = np.ogrid[: (length - 1) * dilation + side, :side, :length]
    return (read == written + dilation * position).astype(np.float32)


def _multiplied(x: keras.KerasTensor, ones: keras.KerasTensor, shape: Shape, name: str) -> keras.KerasTensor:
    """Set to zero what lies beyond the image."""
    pixels, channels = prod(shape), x.shape[-1]
    kernel = np.repeat(np.eye(pixels), channels // pixels, axis=-1).reshape(*shape, 1, channels)
    return keras.layers.Multiply()([x, _fixed(keras.layers.Conv2D, channels, shape, kernel, name)(ones)])


def _fixed(
    kind: type[keras.layers.Conv2D], filters: int, shape: Sequence[int], kernel: np.ndarray, name: str
) -> keras.layers.Conv2D:
    """Return a convolution that moves values from pixels to blocks or back."""
    layer = kind(filters, shape, strides=shape, use_bias=False, trainable=False, name=name)
    layer.build((None, None, None, kernel.shape[2 if kind is keras.layers.Conv2D else 3]))
    layer.set_weights([kernel])
    return layer
