"""Fully convolutional networks as chains of plain Keras layers: build them, read them, count them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from selfscale.errors import UserError, counted

RESIZING = (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D, keras.layers.UpSampling2D)
# Layers that treat every channel on its own: a filter keeps its identity through them.
CHANNELWISE = (
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    *RESIZING,
)


def build(
    widths: Sequence[int],
    *,
    kernel: int = 5,
    mean: float = 0.0,
    deviation: float = 0.1,
    seed: tuple[int, ...] = (0,),
) -> keras.Model:
    """Build a network of hidden convolution layers and an output layer of one filter (thesis 2.2).

    Stride and dilation 1, same padding, bias, ReLU after every layer; truncated normal initialization
    (values beyond two deviations are redrawn), biases zero.

    Args:
        widths: Filters of each hidden layer.
        kernel: Side of the kernels.
        mean: Mean of the initial weights.
        deviation: Their standard deviation.
        seed: The same seed gives the same weights.

    Returns:
        Model from and to float32 of shape `(N, H, W, 1)`, in [0, 1], of any H and W.
    """
    inputs = keras.Input((None, None, 1), name="image")
    x = inputs
    for layer, filters in enumerate([*widths, 1]):
        x = keras.layers.Conv2D(
            filters,
            kernel,
            padding="same",
            activation="relu",
            kernel_initializer=keras.initializers.TruncatedNormal(
                mean, deviation, seed=int(np.random.default_rng((*seed, layer)).integers(2**31))
            ),
            name="output" if layer == len(widths) else f"hidden_{layer}",
        )(x)
    return keras.Model(inputs, x, name="fcn")


def calibrate(model: keras.Model, images: np.ndarray, level: float, *, center: bool = True) -> None:
    """Initialize biases from data (cf. Kraehenbuehl et al. 2016, arXiv:1511.06856).

    The output starts close around `level`: else the first steps all push the same way, and an output ReLU
    that is pushed below zero everywhere never learns again. Without it most networks died within 100
    steps. Its kernel is scaled to a tenth. Hidden filters start at a mean of zero: photographs are
    bright, and a filter whose weights have a negative sum would never fire, and so never learn.

    Args:
        model: Network to calibrate.
        images: float32 of shape `(N, H, W, C)`.
        level: Mean of the targets.
        center: Whether hidden layers are calibrated, too.
    """
    *hidden, output = (block.convolution for block in blocks(model))
    for convolution in hidden if center else []:
        calibrate_layer(convolution, keras.Model(model.input, convolution.input)(images), 0.0, scale=1.0)
    calibrate_layer(output, keras.Model(model.input, output.input)(images), level)


def calibrate_layer(
    convolution: keras.layers.Conv2D, features: np.ndarray, level: float, scale: float = 0.1
) -> None:
    """Scale a layer's kernel, and set the mean of what it puts out before its activation, by its bias.

    `features` are its input, float32 `(N, H, W, C)`. A layer without a bias stays as it is.
    """
    if not convolution.use_bias:
        return
    convolution.kernel.assign(convolution.kernel * scale)
    convolution.bias.assign(level - keras.ops.mean(response(convolution, features), axis=(0, 1, 2)))


def response(convolution: keras.layers.Conv2D, features: np.ndarray) -> tf.Tensor:
    """Return the output of a convolution for its input, before bias and activation."""
    return keras.ops.conv(
        features,
        convolution.kernel,
        convolution.strides,
        convolution.padding,
        dilation_rate=convolution.dilation_rate,
    )


@dataclass(frozen=True)
class Block:
    """A convolution layer and the channelwise layers behind it, up to the next convolution."""

    convolution: keras.layers.Conv2D
    followers: tuple[keras.layers.Layer, ...]

    @property
    def layers(self) -> tuple[keras.layers.Layer, ...]:
        return (self.convolution, *self.followers)

    @property
    def filters(self) -> int:
        return self.convolution.filters


def blocks(model: keras.Model) -> list[Block]:
    """Return the blocks of a chain of plain layers; the last one is the output.

    Raises:
        UserError: The model branches, or has a layer that mixes or reorders channels.
    """
    if not getattr(model, "inputs", None):
        raise UserError(f"network '{model.name}': is no graph of layers, or not built")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        ends = f"{counted(len(model.inputs), 'input')} and {counted(len(model.outputs), 'output')}"
        raise UserError(f"network '{model.name}': has {ends}, and a chain has one of each")
    chain: list[keras.layers.Layer] = []
    x = model.outputs[0]
    while x is not model.inputs[0]:
        layer, node, _ = x._keras_history
        before = layer._inbound_nodes[node].input_tensors
        if len(before) != 1:
            raise UserError(f"network '{model.name}': layer '{layer.name}' is not part of a plain chain")
        chain.insert(0, layer)
        x = before[0]
    found: list[list[keras.layers.Layer]] = []
    for layer in chain:
        if (
            isinstance(layer, keras.layers.Conv2D)
            and type(layer) is keras.layers.Conv2D
            and layer.groups == 1
        ):
            found.append([layer])
        elif isinstance(layer, CHANNELWISE) and found:
            found[-1].append(layer)
        else:
            raise UserError(
                f"network '{model.name}': layer '{layer.name}' ({type(layer).__name__}) is not supported; "
                "use Conv2D (groups=1) first, and behind it only layers that treat channels one by one"
            )
    if not found:
        raise UserError(f"network '{model.name}': has no Conv2D layer")
    return [Block(layers[0], tuple(layers[1:])) for layers in found]


def chained(model: keras.Model, chain: Sequence[Block]) -> keras.Model:
    """Return a model of copies of these blocks, one behind another, with the input and name of `model`.

    Weights are copied where their shape fits.
    """
    inputs = keras.Input(model.input_shape[1:], name=model.input.name)
    x = inputs
    for old in (layer for block in chain for layer in block.layers):
        new = type(old).from_config(old.get_config())
        x = new(x)
        if [weight.shape for weight in new.weights] == [weight.shape for weight in old.weights]:
            new.set_weights(old.get_weights())
    return keras.Model(inputs, x, name=model.name)


def filters_per_layer(model: keras.Model) -> tuple[int, ...]:
    """Return the number of filters of each hidden convolution layer."""
    return tuple(block.filters for block in blocks(model)[:-1])


class Size(NamedTuple):
    """Number of weights, trainable or not, and multiply-accumulates per pixel of the input."""

    parameters: int
    macs_per_pixel: float


def size(model: keras.Model, filters_kept: Sequence[int] | None = None) -> Size:
    """Return the size of a chain of plain layers, or of what is left of it.

    A kernel of k x k with c inputs and f filters costs k*k*c*f multiply-accumulates for each output
    pixel; strides and pooling before it leave fewer such pixels, upsampling more.

    Args:
        model: Chain of layers, see `blocks`.
        filters_kept: Filters left of each hidden layer. Defaults to all.
    """
    chain = blocks(model)
    kept = [*(filters_kept or [block.filters for block in chain[:-1]]), chain[-1].filters]
    parameters, macs, pixels, inputs = 0, 0.0, 1.0, model.input_shape[-1]
    for block, filters in zip(chain, kept, strict=True):
        convolution = block.convolution
        multiplications = prod(convolution.kernel_size) * inputs * filters
        pixels /= prod(convolution.strides)
        macs += multiplications * pixels
        parameters += multiplications + filters * convolution.use_bias
        for layer in block.followers:
            parameters += layer.count_params() // block.filters * filters
            if isinstance(layer, keras.layers.MaxPooling2D | keras.layers.AveragePooling2D):
                pixels /= prod(layer.strides)
            elif isinstance(layer, keras.layers.UpSampling2D):
                pixels *= prod(layer.size)
        inputs = filters
    return Size(parameters, macs)


def to_image(output: np.ndarray) -> np.ndarray:
    """Convert network output (1.0 is white) to 8 bit: scaled, clipped and rounded (thesis 2.2)."""
    return np.rint(np.clip(output.astype(np.float32), 0.0, 1.0) * 255.0).astype(np.uint8)
