"""Random networks with random masks: whatever layers follow one another, the compact model is exact."""

from __future__ import annotations

import keras
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops
from test_graph import close, outputs_with_zeros, random_masks, random_weights

from selfscale.nn.graph import trace
from selfscale.nn.rewriting import random_inputs, rewrite

SAME = {"padding": "same"}
ONE = {
    "conv": lambda x: layers.Conv2D(6, 3, **SAME, activation="relu")(x),
    "point": lambda x: layers.Conv2D(4, 1, use_bias=False)(x),
    "grouped": lambda x: layers.Conv2D(4, 3, groups=2, **SAME)(x) if x.shape[-1] % 2 == 0 else x,
    "each": lambda x: layers.Conv2D(2 * x.shape[-1], 3, groups=x.shape[-1], **SAME)(x),
    "depthwise": lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2, **SAME)(x),
    "separable": lambda x: layers.SeparableConv2D(5, 3, depth_multiplier=2, **SAME)(x),
    "transposed": lambda x: layers.Conv2DTranspose(5, 3, **SAME)(x),
    "dense": lambda x: layers.Dense(6, activation="gelu")(x),
    "normal": lambda x: layers.BatchNormalization()(x),
    "prelu": lambda x: layers.PReLU()(x),
    "groups": lambda x: layers.GroupNormalization(2)(x) if x.shape[-1] % 2 == 0 else x,
    "attention": lambda x: x + layers.MultiHeadAttention(2, 3)(x, x),
    "opaque": lambda x: layers.LayerNormalization()(x),
    "excite": lambda x: x * layers.Dense(x.shape[-1], "sigmoid")(ops.mean(x, axis=(1, 2), keepdims=True)),
    "fold": lambda x: layers.Reshape((4, 4, x.shape[-1]))(layers.Reshape((16, x.shape[-1]))(x)),
    "slice": lambda x: ops.concatenate([x[:, 2:], x[:, :2]], axis=1),
    "mix": lambda x: x + ops.mean(x, axis=-1, keepdims=True),
}
TWO = {
    "concatenate": lambda x, y: layers.Concatenate()([x, y]),
    "add": lambda x, y: layers.Add()([x, y]) if x.shape == y.shape else x,
    "multiply": lambda x, y: layers.Multiply()([x, y]) if x.shape == y.shape else y,
    "project": lambda x, y: x + layers.Conv2D(x.shape[-1], 1)(y),
}
STEPS = st.lists(
    st.tuples(st.sampled_from([*ONE, *TWO]), st.integers(0, 3), st.integers(0, 3)), min_size=3, max_size=9
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(STEPS, st.integers(0, 1000))
def test_random_networks_are_compacted_exactly(steps, seed):
    inputs = keras.Input((4, 4, 2))
    made = [layers.Conv2D(4, 3, padding="same")(inputs)]
    for name, first, second in steps:
        x, y = made[-1 - first % len(made)], made[-1 - second % len(made)]
        made.append(ONE[name](x) if name in ONE else TWO[name](x, y))
        if made[-1].shape[-1] > 48:
            made[-1] = layers.Conv2D(4, 1)(made[-1])
    used = layers.Concatenate()([layers.GlobalAveragePooling2D()(each) for each in made[-2:]])
    model = random_weights(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(used))), seed)
    graph = trace(model)
    keep = random_masks(graph, seed)
    compact = rewrite(model, graph, keep)
    images = random_inputs(model, seed)
    close(outputs_with_zeros(model, graph, keep, images), compact(images), model)
    assert graph.cost(keep).parameters == compact.count_params()
    assert np.isfinite(np.asarray(compact(images))).all()
