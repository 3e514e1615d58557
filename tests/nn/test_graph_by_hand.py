"""Odd networks: what reads a removed channel is written down by hand here, and zeroed in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

import keras
import numpy as np
import pytest
from keras import layers, ops
from test_graph import close, random_weights

from selfscale.nn.graph import trace
from selfscale.nn.graph_walk import every_layer
from selfscale.nn.rewriting import random_inputs, rewrite

CASES: dict[str, tuple] = {}


def case(removed: dict, reads: list, pinned: tuple = ()):
    """Register a network: channels to remove by group, entries that read them, groups that must stay.

    An entry is a layer's weight, a shape to see it in (None: its own), and an index.
    """

    def register(make: Callable) -> Callable:
        CASES[make.__name__] = (make, removed, reads, pinned)
        return make

    return register


ALL = slice(None)


def same(filters: int, size: int = 3, **options):
    return layers.Conv2D(filters, size, padding="same", **options)


@case(
    {"expand": [1, 5], "reduce": [0]},
    [
        ("reduce.kernel", None, (..., [1, 5], ALL)),
        ("project.kernel", None, (..., [1, 5], ALL)),
        ("excite.kernel", None, (..., [0], ALL)),
    ],
)
def squeeze_and_excitation():
    inputs = keras.Input((8, 8, 3))
    x = shortcut = same(4, name="stem")(inputs)
    x = layers.Activation("silu")(layers.BatchNormalization()(same(8, 1, use_bias=False, name="expand")(x)))
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", name="depth")(x))
    s = ops.mean(x, axis=(1, 2), keepdims=True)
    s = same(8, 1, activation="sigmoid", name="excite")(same(2, 1, activation="silu", name="reduce")(s))
    x = layers.Dropout(0.2)(same(4, 1, name="project")(x * s))
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, shortcut]))
    return keras.Model(inputs, layers.Dense(3)(x))


@case(
    {"down": [2], "middle": [1, 4], "up": [0, 3]},
    [
        ("middle.kernel", None, (..., [2], ALL)),
        ("out.kernel", None, (..., [0, 3, 5 + 2], ALL)),
        ("up.kernel", None, (..., [1, 4])),
    ],
)
def unet():
    inputs = keras.Input((None, None, 1))
    down = layers.LeakyReLU(0.1)(layers.BatchNormalization()(same(4, name="down")(inputs)))
    x = same(6, activation="relu", name="middle")(layers.AveragePooling2D(2)(down))
    x = layers.Conv2DTranspose(5, 3, strides=2, padding="same", activation="elu", name="up")(x)
    return keras.Model(inputs, same(1, activation="sigmoid", name="out")(layers.Concatenate()([x, down])))


@case(
    {"attend/heads": [1], "attend/values": [0, 2], "mlp": [3]},
    [
        ("attend.output_dense.kernel", None, ([1],)),
        ("attend.output_dense.kernel", None, (ALL, [0, 2])),
        ("narrow.kernel", None, ([3],)),
    ],
    ("patches",),
)
def vision_transformer():
    inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 2, strides=2, name="patches")(inputs))
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(4, 3, name="attend", dropout=0.1)(y, y)
    y = layers.Dense(12, activation="gelu", name="mlp")(layers.LayerNormalization()(x))
    x = layers.LayerNormalization()(x + layers.Dense(8, name="narrow")(y))
    return keras.Model(inputs, layers.Dense(3)(x[:, 0]))


@case(
    {"attend/heads": [1], "wide": [0, 5]},  # queries 2 and 3; what is added to goes with the outputs
    [
        ("attend._output_dense.kernel", None, ([2, 3],)),
        ("attend._query_dense.kernel", None, ([0, 5],)),
        ("attend._key_dense.kernel", None, ([0, 5],)),
        ("attend._value_dense.kernel", None, ([0, 5],)),
        ("out.kernel", None, ([0, 5],)),
    ],
)
def attention_of_query_groups():
    inputs = keras.Input((7, 3))
    x = layers.Dense(6, name="wide")(inputs)
    x = x + layers.GroupQueryAttention(4, 6, 3, name="attend")(query=x, value=x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x))


@case(
    {"first": [2], "second": [1], "conv": [4]},
    [
        ("first.forward_layer.cell.kernel", None, ([4],)),
        ("first.backward_layer.cell.kernel", None, ([4],)),
        ("first.forward_layer.cell.recurrent_kernel", None, ([2],)),
        ("first.backward_layer.cell.recurrent_kernel", None, ([2],)),
        ("second.forward_layer.cell.kernel", None, ([2, 4 + 2],)),
        ("second.backward_layer.cell.kernel", None, ([2, 4 + 2],)),
        ("second.forward_layer.cell.recurrent_kernel", None, ([1],)),
        ("second.backward_layer.cell.recurrent_kernel", None, ([1],)),
        ("out.kernel", None, ([1],)),
    ],
)
def recurrent_in_both_directions():
    inputs = keras.Input((9, 2))
    x = layers.Conv1D(5, 3, padding="causal", dilation_rate=2, name="conv")(inputs)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="first")(x)
    x = layers.Bidirectional(layers.GRU(3), merge_mode="sum", name="second")(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x))


@case(
    {"each": [1], "frames": [0, 3]},
    [
        ("frames.cell.kernel", None, (ALL, ALL, [1])),
        ("frames.cell.recurrent_kernel", None, (ALL, ALL, [0, 3])),
        ("out.kernel", (6, 6, 4, 2), (ALL, ALL, [0, 3])),
    ],
)
def convolutional_lstm():
    inputs = keras.Input((3, 8, 8, 1))
    x = layers.TimeDistributed(layers.Conv2D(3, 3, activation="relu"), name="each")(inputs)
    x = layers.ConvLSTM2D(4, 3, padding="same", name="frames")(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(layers.Flatten()(x)))


@case(
    {"a": [0], "b": [1, 2]},
    [("b.kernel", None, (..., [0])), ("out.kernel", (4, 4, 4, 5, 2), (ALL, ALL, ALL, [1, 2]))],
)
def volumes():
    inputs = keras.Input((4, 4, 4, 1))
    x = layers.BatchNormalization()(layers.Conv3D(4, 3, strides=2, padding="same", name="a")(inputs))
    x = layers.Conv3DTranspose(5, 2, strides=2, activation="softplus", name="b")(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(2, name="out")(layers.Flatten()(layers.SpatialDropout3D(0.1)(x))))


@case(
    {"trunk/inner": [3], "trunk/vector": [0, 4]},
    [("trunk/vector.kernel", None, ([3],)), ("out.kernel", None, ([0, 4, 6, 10],))],
)
def siamese_trunk():
    inner = keras.Input((7,))
    x = layers.PReLU()(layers.Dense(6, name="inner")(inner))
    trunk = keras.Model(inner, layers.Dense(6, activation="tanh", name="vector")(x), name="trunk")
    left, right = keras.Input((7,), name="left"), keras.Input((7,), name="right")
    a, b = trunk(left), trunk(right)
    joint = layers.Concatenate()([layers.Subtract()([a, b]), layers.Multiply()([a, b])])
    return keras.Model({"l": left, "r": right}, layers.Dense(1, name="out")(joint))


@case(
    {"tower": [1], "lateral": [2, 3], "deep": [4]},
    [
        ("tower.kernel", None, (..., [2, 3], ALL)),
        ("boxes.kernel", None, (..., [1], ALL)),
        ("classes.kernel", None, (..., [1], ALL)),
        ("lateral.kernel", None, (..., [4], ALL)),
    ],
)
def detector():
    inputs = keras.Input((16, 16, 3))
    c = same(6, strides=2, activation="relu", name="shallow")(inputs)
    d = same(7, strides=2, activation="relu", name="deep")(c)
    p = same(5, 1, name="lateral")(d)
    q = layers.Add()([same(5, 1, name="narrow")(c), layers.UpSampling2D(interpolation="bilinear")(p)])
    tower = same(4, activation="relu", name="tower")
    boxes, classes = same(8, name="boxes"), same(6, activation="sigmoid", name="classes")
    towers = [tower(p), tower(q)]
    found = {
        "boxes": layers.Concatenate(axis=1)([layers.Reshape((-1, 4))(boxes(each)) for each in towers]),
        "classes": layers.Concatenate(axis=1)([layers.Reshape((-1, 3))(classes(each)) for each in towers]),
    }
    return keras.Model(inputs, found)


@case(
    {"a": [1], "separable": [0, 5]},
    [
        ("separable.pointwise_kernel", None, (..., [4, 5, 6, 7], ALL)),  # two times two of channel 1
        ("row.kernel", None, (ALL, [0, 5])),
    ],
)
def depthwise_and_separable():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 1, name="a")(inputs)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu6")(x)
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, padding="same", name="separable")(x)
    x = layers.Reshape((-1, 6))(layers.Permute((2, 1, 3))(x))
    return keras.Model(inputs, layers.Conv1D(2, 3, name="row")(x))


@case(
    {"scale": [2, 5]},  # shift and convolution go with it
    [("next.kernel", None, (..., [2, 5], ALL))],
)
def modulated_by_a_second_input():
    image, vector = keras.Input((6, 6, 3)), keras.Input((4,))
    scale = layers.Reshape((1, 1, 6))(layers.Dense(6, activation="sigmoid", name="scale")(vector))
    shift = layers.Dense(6, name="shift")(vector)[:, None, None]
    x = ops.silu(layers.Conv2D(6, 3, name="conv")(image) * scale + shift)
    x = layers.Conv2D(4, 3, name="next")(x)
    return keras.Model([image, vector], layers.Dense(2)(layers.GlobalMaxPooling2D()(x)))


@case(
    {"a": [1], "b": [0]},  # groups of two and of three channels
    [
        ("b.kernel", None, (..., [2, 3], ALL)),
        ("out.kernel", None, ([2, 3],)),
        ("c.kernel", None, (..., [0, 1, 2], ALL)),
    ],
)
def residual_with_group_normalization():
    inputs = keras.Input((6, 6, 3))
    x = layers.ReLU()(layers.GroupNormalization(3)(same(6, name="a")(inputs)))
    y = layers.ReLU()(layers.GroupNormalization(3)(same(9, name="b")(x)))
    x = layers.Add()([x, same(6, name="c")(y)])
    return keras.Model(inputs, layers.Dense(2, name="out")(layers.GlobalAveragePooling2D()(x)))


@case(
    {"encode": [1, 2], "decode": [0], "step": [3]},
    [
        ("encode.cell.recurrent_kernel", None, ([1, 2],)),
        ("decode.cell.kernel", None, ([1, 2],)),
        ("decode.cell.recurrent_kernel", None, ([0],)),
        ("step.layer.kernel", None, ([0],)),
        ("out.kernel", None, ([3],)),
    ],
)
def encoder_and_decoder():
    inputs = keras.Input((5, 3))
    x = layers.RepeatVector(4)(layers.GRU(6, name="encode")(layers.Masking()(inputs)))
    x = layers.LSTM(5, return_sequences=True, name="decode")(x)
    x = layers.TimeDistributed(layers.Dense(4, activation="relu"), name="step")(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x))


def zeroed(model: keras.Model, reads: list) -> None:
    found = {"/".join(path): layer for path, layer in every_layer(model)}
    for name, shape, index in reads:
        layer, _, weight = name.partition(".")
        variable = attrgetter(weight)(found[layer])
        value = variable.numpy().copy()
        value.reshape(shape or value.shape)[index] = 0
        variable.assign(value)


@pytest.mark.parametrize("name", CASES)
def test_a_compact_network_is_the_one_with_zeros_by_hand(name):
    make, removed, reads, pinned = CASES[name]
    keras.utils.set_random_seed(0)
    model = random_weights(make())
    graph = trace(model)
    groups = {group.name: group for group in graph.groups}
    assert all(groups[each].pins for each in pinned)
    keep = {groups[each].index: ~np.isin(np.arange(groups[each].size), removed[each]) for each in removed}
    before = model.count_params()
    compact = rewrite(model, graph, keep, check=False)
    assert graph.cost(keep).parameters == compact.count_params() < before
    inputs = random_inputs(model, 3)
    plain = keras.tree.flatten(model(inputs))
    zeroed(model, reads)
    close(model(inputs), compact(inputs), model)
    changed = [np.abs(a - b).max() for a, b in zip(plain, keras.tree.flatten(model(inputs)), strict=True)]
    assert min(changed) > 1e-4, "what was removed had an effect"


@case(
    {"query": [1], "value": [0, 4], "up": [2]},  # a key goes with the query's channel
    [
        ("attend.scale", None, ([1],)),
        ("up.kernel", None, ([0, 4],)),
        ("down.kernel", None, (ALL, [2])),
    ],
)
def additive_attention_and_einsum():
    inputs, other = keras.Input((4, 3)), keras.Input((5, 3), name="other")
    query = layers.Dense(6, name="query")(inputs)
    key, value = layers.Dense(6, name="key")(other), layers.Dense(5, name="value")(other)
    x = layers.AdditiveAttention(name="attend")([query, value, key])
    x = layers.EinsumDense("abc,cde->abde", (4, 2, 4), bias_axes="de", activation="relu", name="up")(x)
    x = layers.EinsumDense("...de,def->...df", (2, 3), name="down")(x)
    return keras.Model([inputs, other], layers.Dense(2)(layers.Flatten()(x)))


@case({"value": [0, 2]}, [("out.kernel", None, ([0, 2],))])
def attention_passes_its_values_on():
    inputs = keras.Input((4, 3))
    query, key = layers.Dense(6)(inputs), layers.Dense(6)(inputs)
    x = layers.Attention(use_scale=True, score_mode="concat")(
        [query, layers.Dense(4, name="value")(inputs), key]
    )
    return keras.Model(inputs, layers.Dense(2, name="out")(x))
