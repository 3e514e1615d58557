"""Rules of merges, reshapes and the operations of `keras.ops`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import layers
from keras.config import image_data_format

from selfscale.nn.graph_recording import OpaqueError, Rule, Tensor, Use, register_rule
from selfscale.nn.graph_rules import passes

# Of `keras.ops`, by the names of their classes: these are no public names of Keras.
UNARY = """
Absolute Fabs Arctan Cast Cbrt Ceil Celu Copy Cos Elu Erf Exp Expm1 Floor Gelu HardShrink HardSigmoid
HardSilu HardTanh LeakyRelu Log1p LogSigmoid Negative Relu Relu6 Round Rsqrt SaturateCast Selu Sigmoid Sign
Silu Sin SoftShrink Softplus Softsign SparsePlus SparseSigmoid Sqrt Square Squareplus StopGradient Tanh
TanhShrink Threshold
"""
BINARY = """
Add Subtract Multiply Divide TrueDivide Maximum Minimum Fmax Fmin Power Logaddexp Greater GreaterEqual Less
LessEqual Where
"""
SPATIAL = "AveragePool AdaptiveAveragePool AdaptiveMaxPool MaxPool Resize"
REDUCTIONS = "Mean Sum Max Min Amax Amin Var Std Prod"


@register_rule(layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)
def merge(use: Use) -> np.ndarray:
    """Couple the channels of all inputs; one channel is broadcast over many."""
    every = [use.channels(tensor) for tensor in use.inputs]
    width = max(map(len, every))
    wide = [ids for ids in every if len(ids) == width]
    if any(len(ids) not in (1, width) for ids in every):
        raise OpaqueError("its inputs have different numbers of channels")
    for ids in every:
        if len(ids) == width:
            use.recording.couple(wide[0], ids)
        else:
            use.recording.pin(ids, f"broadcast over channels by {use.path[-1]!r}")
    return wide[0]


@register_rule(layers.Concatenate)
def concatenate(use: Use) -> np.ndarray:
    """Join the channels, or couple them where other axes are joined."""
    every = [use.channels(tensor) for tensor in use.inputs]
    rank = len(use.inputs[0].shape)
    if use.config["axis"] % rank == rank - 1:
        return np.concatenate(every)
    for ids in every[1:]:
        use.recording.couple(every[0], ids)
    return every[0]


def _reshaped(use: Use) -> np.ndarray:
    """Return the channels of the last axis after a reshape, which holds all of them in turns."""
    ids, width = use.ids, use.output.shape[-1]
    before, after = use.inputs[0].shape[1:], use.output.shape[1:]
    if None in before or None in after or not after or width is None:
        raise OpaqueError("its shapes are not known")
    if math.prod(before) != math.prod(after):  # type: ignore[arg-type]
        raise OpaqueError("it moves the batch axis")
    if width % len(ids):
        raise OpaqueError("it spreads the channels over several axes")
    return np.tile(ids, width // len(ids))


@register_rule(layers.Flatten)
def flatten(use: Use) -> np.ndarray:
    return _reshaped(use)


@register_rule(layers.Reshape)
def reshape(use: Use) -> np.ndarray:
    ids = _reshaped(use)
    if use.layer.target_shape[-1] != -1:
        use.count("target_shape", ids, len(use.layer.target_shape) - 1)
    return ids


def _operands(use: Use) -> list[Any]:
    positional, named = use.arguments
    return [*positional, *named.values()]


def _binary(use: Use) -> np.ndarray:
    for operand in _operands(use):
        if not isinstance(operand, Tensor) and np.shape(operand)[-1:] not in ((), (1,)):
            raise OpaqueError("it has a constant for every channel")
    return merge(use)


def _spatial(use: Use) -> np.ndarray:
    if (use.config.get("data_format") or image_data_format()) != "channels_last":
        raise OpaqueError("its channels come first")
    return use.ids


def _clip(use: Use) -> np.ndarray:
    if np.ndim(use.config["x_min"]) or np.ndim(use.config["x_max"]):
        raise OpaqueError("it has a constant for every channel")
    return use.ids


def _along_axes(reason: str) -> Rule:
    """Return the rule of an operation that leaves channels alone unless their axis is among its own."""

    def rule(use: Use) -> np.ndarray:
        rank = max(len(use.inputs[0].shape), len(use.output.shape))  # it may add or remove axes
        axis = use.config.get("axis")
        if axis is None or rank - 1 in np.atleast_1d(axis) % rank:
            raise OpaqueError(reason)
        return use.ids

    return rule


def _slice(use: Use) -> np.ndarray:
    """Pass channels on if the slice leaves the last axis alone."""
    key = _operands(use)[1]
    taken = [each for each in (key if isinstance(key, list | tuple) else [key]) if each is not None]
    if not all(isinstance(each, int | slice) or each is Ellipsis for each in taken):
        raise OpaqueError("it selects by a tensor")
    reaches_last = Ellipsis in taken or len(taken) >= len(use.inputs[0].shape)
    if reaches_last and taken[-1] is not Ellipsis and taken[-1] != slice(None):
        raise OpaqueError("it selects channels")
    return use.ids


def _transpose(use: Use) -> np.ndarray:
    axes = use.config.get("axes")
    if not axes or axes[-1] % len(axes) != len(axes) - 1 or axes[0] != 0:
        raise OpaqueError("it moves the channel axis")
    return use.ids


def _reshape(use: Use) -> np.ndarray:
    shape = use.config.get("newshape")
    if not isinstance(shape, list | tuple) or shape[0] not in (-1, use.inputs[0].shape[0]):
        raise OpaqueError("its new shape is not known")
    ids = _reshaped(use)
    if shape[-1] != -1:
        use.count("newshape", ids, len(shape) - 1)
    return ids


OPERATIONS: dict[str, Rule] = {
    **dict.fromkeys(UNARY.split(), passes),
    **dict.fromkeys(SPATIAL.split(), _spatial),
    "Clip": _clip,
    **dict.fromkeys(BINARY.split(), _binary),
    **dict.fromkeys(REDUCTIONS.split(), _along_axes("it mixes channels")),
    "Concatenate": concatenate,
    "ExpandDims": _along_axes("it moves the channel axis"),
    "GetItem": _slice,
    "Reshape": _reshape,
    "Squeeze": _along_axes("it moves the channel axis"),
    "Transpose": _transpose,
}
