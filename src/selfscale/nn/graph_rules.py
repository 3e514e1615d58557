"""Rules of Keras layers: which channels they read, produce, pass on or couple."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import activations, layers

from selfscale.nn.graph_recording import OpaqueError, Use, register_rule

NAMES = """
celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear log_sigmoid mish relu
relu6 selu sigmoid silu soft_shrink softplus softsign sparse_plus sparse_sigmoid squareplus tanh tanh_shrink
threshold
"""
ELEMENTWISE = {getattr(activations, name) for name in NAMES.split() if hasattr(activations, name)}
ELEMENTWISE_LAYERS = (layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Identity)


def activated(use: Use, ids: np.ndarray) -> np.ndarray:
    """Return the channels behind the layer's activation, pinned if it may mix them, like softmax."""
    function: Any = use.layer.activation
    if type(function) not in ELEMENTWISE_LAYERS and function not in ELEMENTWISE:
        name = getattr(function, "__name__", type(function).__name__)
        use.recording.pin(ids, f"activation {name} of {use.path[-1]!r} may mix channels")
    return ids


def _of_rank(name: str, *ranks: int) -> list[type]:
    return [
        getattr(layers, f"{name}{rank}D") for rank in ranks or (1, 2, 3) if hasattr(layers, f"{name}{rank}D")
    ]


@register_rule(
    *ELEMENTWISE_LAYERS,
    *(layers.Dropout, layers.GaussianNoise, layers.GaussianDropout, layers.AlphaDropout, layers.RepeatVector),
    *_of_rank("SpatialDropout"),
    *(cls for kind in ("Max", "Average") for cls in _of_rank(f"{kind}Pooling")),
    *(cls for kind in ("Max", "Average") for cls in _of_rank(f"Global{kind}Pooling")),
    *(cls for kind in ("Max", "Average") for cls in _of_rank(f"Adaptive{kind}Pooling")),
    *(cls for kind in ("ZeroPadding", "Cropping", "UpSampling") for cls in _of_rank(kind)),
    *(layers.Resizing, layers.CenterCrop),
)
def passes(use: Use) -> np.ndarray:
    """Pass every channel on, each by itself."""
    return use.ids


@register_rule(layers.Activation)
def activation(use: Use) -> np.ndarray:
    return activated(use, use.ids)


@register_rule(layers.Rescaling)
def rescaling(use: Use) -> np.ndarray:
    if np.ndim(use.layer.scale) or np.ndim(use.layer.offset):
        raise OpaqueError("it scales every channel by its own number")
    return use.ids


@register_rule(layers.Dense)
def dense(use: Use) -> np.ndarray:
    ids = use.ids
    use.read("kernel", 0, ids)
    units = use.produce(use.layer.units, kernel=1, bias=0)
    use.count("units", units)
    use.multiply("kernel", use.inputs[0].shape[1:-1])
    return activated(use, units)


@register_rule(*_of_rank("Conv"))
def convolution(use: Use) -> np.ndarray:
    layer, ids = use.layer, use.ids
    groups, filters = layer.groups, layer.filters
    use.multiply("kernel", use.output.shape[1:-1])
    if groups == len(ids) and groups > 1:  # each channel by itself
        repeated = np.repeat(ids, filters // groups)
        use.follow("kernel", -1, repeated)
        use.follow("bias", 0, repeated)
        use.count("groups", ids)
        use.count("filters", repeated)
        return activated(use, repeated)
    # The n-th channels of all groups go together: the groups stay equally wide.
    use.read("kernel", -2, use.couple_all(ids.reshape(groups, -1)))
    outputs = use.produce(filters, kernel=-1, bias=0)
    use.couple_all(outputs.reshape(groups, -1))
    use.count("filters", outputs)
    return activated(use, outputs)


@register_rule(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
def transposed_convolution(use: Use) -> np.ndarray:
    layer = use.layer
    if getattr(layer, "groups", 1) != 1:
        raise OpaqueError("it has groups")
    use.read("kernel", -1, use.ids)
    outputs = use.produce(layer.filters, kernel=-2, bias=0)
    use.count("filters", outputs)
    use.multiply("kernel", use.inputs[0].shape[1:-1])
    return activated(use, outputs)


@register_rule(layers.SeparableConv1D, layers.SeparableConv2D)
def separable_convolution(use: Use) -> np.ndarray:
    layer, ids = use.layer, use.ids
    use.follow("depthwise_kernel", -2, ids)
    use.read("pointwise_kernel", -2, np.repeat(ids, layer.depth_multiplier))
    outputs = use.produce(layer.filters, pointwise_kernel=-1, bias=0)
    use.count("filters", outputs)
    for weight in ("depthwise_kernel", "pointwise_kernel"):
        use.multiply(weight, use.output.shape[1:-1])
    return activated(use, outputs)


@register_rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def depthwise_convolution(use: Use) -> np.ndarray:
    layer, ids = use.layer, use.ids
    repeated = np.repeat(ids, layer.depth_multiplier)
    use.follow("kernel", -2, ids)
    use.follow("bias", 0, repeated)
    use.multiply("kernel", use.output.shape[1:-1])
    return activated(use, repeated)


@register_rule(layers.BatchNormalization)
def batch_normalization(use: Use) -> np.ndarray:
    ids = use.ids
    if use.layer.axis not in (-1, len(use.inputs[0].shape) - 1):
        raise OpaqueError("it normalizes along another axis than the last")
    for weight in ("gamma", "beta", "moving_mean", "moving_variance"):
        use.follow(weight, 0, ids)
    return ids


@register_rule(layers.GroupNormalization)
def group_normalization(use: Use) -> np.ndarray:
    """Couple the channels of each group: statistics are its own, so it can go whole."""
    ids, groups = use.ids, use.layer.groups
    if use.layer.axis not in (-1, len(use.inputs[0].shape) - 1):
        raise OpaqueError("it normalizes along another axis than the last")
    if groups == 1:
        raise OpaqueError("its statistics are those of all channels")
    whole = use.couple_all(ids.reshape(groups, -1).T)
    for weight in ("gamma", "beta"):
        use.follow(weight, 0, ids)
    use.count("groups", whole)
    return ids


@register_rule(layers.LayerNormalization)
def layer_normalization(use: Use) -> np.ndarray:
    ids, rank = use.ids, len(use.inputs[0].shape)
    if rank - 1 in np.atleast_1d(use.layer.axis) % rank:
        raise OpaqueError("its statistics are those of all channels")
    for weight in ("gamma", "beta"):
        if getattr(use.layer, weight) is not None:
            use.leave(weight)
    return ids


@register_rule(layers.PReLU)
def prelu(use: Use) -> np.ndarray:
    ids = use.ids
    if use.layer.alpha.shape[-1] == len(ids):
        use.follow("alpha", -1, ids)
    else:
        use.leave("alpha")  # shared by the channels
    return ids


@register_rule(layers.Embedding)
def embedding(use: Use) -> np.ndarray:
    for tensor in use.inputs:
        use.recording.pin(tensor.ids, f"indices of {use.path[-1]!r}")
    outputs = use.produce(use.layer.output_dim, embeddings=1)
    use.count("output_dim", outputs)
    return outputs


@register_rule(layers.Softmax)
def softmax(use: Use) -> np.ndarray:
    rank = len(use.inputs[0].shape)
    axes = np.atleast_1d(use.layer.axis) % rank
    if rank - 1 in axes:
        raise OpaqueError("it mixes channels")
    return use.ids


@register_rule(layers.Permute)
def permute(use: Use) -> np.ndarray:
    if use.layer.dims[-1] != len(use.layer.dims):
        raise OpaqueError("it moves the channel axis")
    return use.ids
