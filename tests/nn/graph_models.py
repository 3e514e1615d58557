"""Small models of every kind, each with the number of channels that may be removed."""

from __future__ import annotations

import keras
from keras import layers, ops

MODELS = {}


def model(removable):
    """Register a function that returns (inputs, outputs) or a model."""

    def register(make):
        def build():
            made = make()
            return made if isinstance(made, keras.Model) else keras.Model(*made, name=make.__name__)

        MODELS[make.__name__] = (build, removable)
        return make

    return register


def image(channels=3, side=8):
    return keras.Input((side, side, channels))


def conv(x, filters, size=3, **options):
    return layers.Conv2D(filters, size, padding="same", **options)(x)


def bn_relu(x):
    return layers.ReLU()(layers.BatchNormalization()(x))


def head(x, units=3):
    return layers.Dense(units)(layers.GlobalAveragePooling2D()(x))


@model(6)
def residual():
    inputs = image()
    x = bn_relu(conv(inputs, 6, use_bias=False))
    y = conv(x, 6, activation="relu")
    x = layers.Concatenate()([layers.Add()([x, y]), y])
    return inputs, layers.Dense(3, activation="softmax")(layers.Flatten()(x))


@model(11)
def sequential():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5),
            layers.PReLU(),
            layers.Dense(2),
        ]
    )


@model(6 + 4)
def nested_used_twice():
    inputs, inner = image(), keras.Input((8, 8, 6))
    block = keras.Model(inner, [layers.Conv2D(4, 1)(inner), layers.DepthwiseConv2D(3)(inner)])
    x = conv(inputs, 6)
    a, b = block(x)
    c, _ = block(layers.Dropout(0.1)(x))
    return inputs, [conv(a, 2), conv(b, 3, 1), conv(c, 2)]


@model(6)
def nested_sequential_shared():
    inputs = image()
    block = keras.Sequential([keras.Input((8, 8, 6)), layers.Conv2D(6, 3, padding="same"), layers.ReLU()])
    return inputs, head(block(block(conv(inputs, 6))))


@model(4 + 5)
def nested_ending_in_an_output():
    inputs, inner = image(), keras.Input((8, 8, 4))
    block = keras.Model(inner, conv(conv(inner, 5), 2))
    return inputs, block(conv(inputs, 4))


@model(6 + 6)
def shared_layer():
    inputs = image()
    shared = layers.Conv2D(6, 3, padding="same")
    x, y = conv(inputs, 6), conv(inputs, 6, 1)
    return inputs, head(layers.Add()([shared(x), shared(y)]))


@model(6 + 4)
def flatten_to_dense():
    inputs = image(1, 4)
    return inputs, layers.Dense(2)(layers.Dense(4, activation="gelu")(layers.Flatten()(conv(inputs, 6))))


@model(8 + 4 + 5)
def one_dimensional():
    inputs = keras.Input((16, 2))
    x = layers.SeparableConv1D(8, 3, depth_multiplier=2, activation="relu")(inputs)
    x = layers.Conv1DTranspose(4, 3, strides=2)(layers.ZeroPadding1D(1)(x))
    x = layers.SeparableConv1D(5, 3, depth_multiplier=3)(layers.MaxPooling1D()(x))
    return inputs, layers.Conv1D(1, 3, dilation_rate=2)(layers.UpSampling1D(2)(x))


@model(4 + 6)
def three_dimensional():
    inputs = keras.Input((6, 6, 6, 1))
    x = layers.BatchNormalization()(layers.Conv3D(4, 3, padding="same")(inputs))
    x = layers.Conv3DTranspose(6, 2, strides=2)(layers.AveragePooling3D(2)(x))
    return inputs, layers.Dense(2)(layers.GlobalMaxPooling3D()(x))


@model(2 + 4)
def grouped_convolution():
    inputs = image()
    x = bn_relu(conv(inputs, 8))  # 4 groups of 2: two units
    x = conv(x, 16, groups=4)  # four units
    return inputs, head(layers.ReLU()(x))


@model(6 + 6)
def a_convolution_of_one_channel_per_group():
    inputs = image()
    x = conv(inputs, 6)
    x = conv(x, 12, 5, groups=6)  # two filters per channel
    return inputs, head(conv(x, 6, 1))


@model(8 + 2)
def squeeze_excite():
    inputs = image()
    x = conv(inputs, 8, activation="silu")
    s = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(x))
    s = conv(conv(s, 2, 1, activation="relu"), 8, 1, activation="sigmoid")
    return inputs, head(layers.Multiply()([x, s]))


@model(6 + 6 + 8)
def unet():
    inputs = image()
    a = bn_relu(conv(inputs, 6))
    b = bn_relu(conv(layers.MaxPooling2D()(a), 8))
    up = layers.Conv2DTranspose(6, 2, strides=2)(b)
    return inputs, conv(layers.Concatenate()([up, a]), 1, activation="sigmoid")


@model(6)
def operations():
    inputs = image()
    x = ops.relu(conv(inputs, 6))
    x = ops.add(x, 1.0) * 2 - x / 3
    x = ops.concatenate([x, ops.maximum(x, 0.1)], axis=-1)
    x = ops.mean(x[:, 1:, ::2], axis=(1, 2))
    x = ops.reshape(ops.expand_dims(x, 1), (-1, 12))
    return inputs, layers.Dense(2)(ops.squeeze(ops.expand_dims(x, 1), 1))


@model(16 + 2 + 4)
def transformer_block():
    inputs = keras.Input((5, 8))
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    x = layers.LayerNormalization()(layers.Add()([inputs, x]))
    y = layers.Dense(8)(layers.Dense(16, activation="gelu")(x))
    x = layers.LayerNormalization()(layers.Add()([x, y]))
    return inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x))


@model(6)
def embedding():
    inputs = keras.Input((7,), dtype="int32")
    x = layers.Embedding(11, 6, mask_zero=True)(inputs)
    return inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x))


@model(6 + 4 + 4)
def several_inputs_and_outputs():
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((4,), name="right")
    x = conv(left, 6)
    y = layers.Dense(4)(right)
    joint = layers.Concatenate()([layers.GlobalMaxPooling2D()(x), y])
    boxes = layers.Dense(4, name="boxes")(layers.Dense(4)(joint))
    return {"left": left, "right": right}, {"boxes": boxes, "map": conv(x, 1)}


@model(0)
def an_output_in_the_middle():
    inputs = image()
    x = conv(inputs, 6)
    return inputs, [x, head(x)]


@model(4)
def inner_softmax():
    inputs = image()
    x = conv(conv(inputs, 6, activation="softmax"), 4)
    return inputs, head(layers.Softmax(axis=(1, 2))(x))


@model(2 + 4)
def group_normalization():
    inputs = image()
    return inputs, head(conv(layers.GroupNormalization(2)(conv(inputs, 6)), 4))


@model(6 + 4)
def lstm():
    inputs = keras.Input((7, 3))
    x = layers.LSTM(4)(layers.Dense(6)(inputs))
    return inputs, layers.Dense(2)(x)


@model(6 + 4)
def time_distributed():
    inputs = keras.Input((2, 8, 8, 3))
    x = layers.TimeDistributed(layers.Conv2D(6, 3))(inputs)
    return inputs, layers.Dense(2)(layers.Dense(4)(layers.GlobalAveragePooling3D()(x)))


@model(0)
def dot():
    inputs = keras.Input((5,))
    x, y = layers.Dense(4)(inputs), layers.Dense(4)(inputs)
    return inputs, layers.Dense(2)(layers.Dot(axes=1)([x, y]))


@model(4)
def sliced():
    inputs = image()
    x = conv(inputs, 6)
    x = conv(x[..., :3], 4)
    return inputs, head(x)


@model(0)
def split():
    inputs = image()
    a, b = ops.split(conv(inputs, 6), 2, axis=-1)
    return inputs, head(layers.Add()([a, b]))


@model(0)
def shuffled():
    inputs = image()
    x = layers.Reshape((8, 8, 2, 3))(conv(inputs, 6))
    x = layers.Reshape((8, 8, 6))(layers.Permute((1, 2, 4, 3))(x))
    return inputs, head(x)


@model(4)
def a_layer_shared_with_a_nested_model():
    inputs, inner = image(), keras.Input((8, 8, 6))
    shared = layers.Conv2D(6, 3, padding="same")
    block = keras.Model(inner, shared(inner))
    return inputs, head(conv(shared(block(conv(inputs, 6))), 4))


@model(4)
def a_constant_per_channel():
    inputs = image()
    x = conv(inputs, 6) * ops.convert_to_tensor([1.0, 2, 3, 4, 5, 6])
    return inputs, head(conv(x, 4))


@model(6)
def a_map_broadcast_over_channels():
    inputs = image()
    x = conv(inputs, 6)
    attention = layers.Activation("sigmoid")(conv(x, 1))
    return inputs, head(layers.Multiply()([x, attention]))


@model(0)
def a_mean_over_channels():
    inputs = image()
    x = conv(inputs, 6)
    return inputs, head(layers.Add()([x, ops.mean(x, axis=-1, keepdims=True)]))


@model(6)
def channels_first_in_between():
    inputs = image()
    x = layers.Permute((2, 1, 3))(conv(inputs, 6))
    return inputs, head(x)


@model(0)
def transposed_channels():
    inputs = image()
    x = layers.Permute((3, 1, 2))(conv(inputs, 6))
    return inputs, head(x)


@model(6)
def a_prelu_of_shared_axes():
    inputs = image()
    return inputs, head(layers.PReLU(shared_axes=[1, 2])(conv(inputs, 6)))


@model(6)
def a_prelu_of_one_number():
    inputs = image()
    return inputs, head(layers.PReLU(shared_axes=[1, 2, 3])(conv(inputs, 6)))


@model(6)
def ranks_broadcast():
    inputs = image()
    x = conv(inputs, 6)
    return inputs, head(layers.Multiply()([x, layers.Dense(6)(layers.GlobalAveragePooling2D()(x))]))


@model(8)
def a_concatenation_along_the_height():
    inputs = image()
    x = layers.Concatenate(axis=1)([conv(inputs, 8), conv(inputs, 8, 1)])
    return inputs, head(x)


@model(4 + 6)
def a_sum_with_a_concatenation():
    inputs = image()
    joined = layers.Concatenate()([conv(inputs, 4), conv(inputs, 6)])
    return inputs, head(layers.Add()([joined, conv(inputs, 10)]))


@model(5)
def the_input_concatenated():
    inputs = image()
    return inputs, conv(layers.Concatenate()([inputs, conv(inputs, 5), inputs]), 2)


@model(5)
def an_unknown_size():
    inputs = keras.Input((None, None, 1))
    return inputs, conv(bn_relu(conv(inputs, 5)), 1)


class Shift(layers.Layer):
    """A layer without a rule, with a weight per channel."""

    def build(self, shape):
        self.shift = self.add_weight((shape[-1],), name="shift")

    def call(self, x):
        return x + self.shift


@model(4)
def a_custom_layer():
    inputs = image()
    return inputs, head(conv(Shift()(conv(inputs, 6)), 4))


class OtherDense(layers.Dense):
    def call(self, x):
        return super().call(x) + keras.ops.sum(x, axis=-1, keepdims=True)


@model(4)
def a_subclass_of_a_layer_with_a_rule():
    inputs = keras.Input((3,))
    return inputs, layers.Dense(2)(layers.Dense(4)(OtherDense(5)(layers.Dense(6)(inputs))))


def half(x):
    return keras.ops.softmax(x) / 2


@model(4)
def a_custom_activation():
    inputs = keras.Input((3,))
    return inputs, layers.Dense(2)(layers.Dense(4)(layers.Dense(6, activation=half)(inputs)))


@model(6)
def an_activation_layer_inside():
    inputs = keras.Input((3,))
    return inputs, layers.Dense(2)(layers.Dense(6, activation=layers.LeakyReLU(0.2))(inputs))


@model(6)
def mixed_bfloat16():
    inputs = image()
    x = conv(inputs, 6, dtype="mixed_bfloat16")
    return inputs, head(layers.ReLU(dtype="mixed_bfloat16")(x))


@model(6)
def mixed_float16():
    inputs = image()
    x = layers.BatchNormalization(dtype="mixed_float16")(conv(inputs, 6, dtype="mixed_float16"))
    return inputs, head(x)


@model(6)
def pure_bfloat16():
    inputs = keras.Input((8, 8, 3), dtype="bfloat16")
    x = conv(inputs, 6, dtype="bfloat16")
    return inputs, layers.Dense(2, dtype="bfloat16")(layers.GlobalAveragePooling2D(dtype="bfloat16")(x))


@model(6)
def frozen_layers():
    inputs = image()
    x = conv(inputs, 6, trainable=False)
    return inputs, head(layers.BatchNormalization(trainable=False)(x))


@model(5)
def normalization_of_the_input():
    inputs = image()
    normalize = layers.Normalization()
    normalize.adapt(keras.random.normal((4, 8, 8, 3), 2.0, 3.0))
    return inputs, head(conv(layers.Rescaling(1 / 255)(normalize(inputs)), 5))


@model(0)
def an_activity_regularizer():
    inputs = keras.Input((3,))
    return inputs, layers.Dense(2)(layers.Dense(6, activity_regularizer="l2")(inputs))


@model(4)
def a_fixed_batch():
    inputs = keras.Input(batch_shape=(4, 6))
    x = layers.Dense(4)(inputs)
    return inputs, layers.Dense(2)(x * ops.reshape(ops.mean(inputs, axis=1), (4, 1)))


@model(0)
def the_batch_as_channels():
    inputs = keras.Input(batch_shape=(4, 6))
    x = layers.Dense(4)(inputs)
    return inputs, layers.Dense(2)(x * ops.mean(x, axis=1))


@model(4 + 6)
def bidirectional_after_removable():
    inputs = keras.Input((7, 3))
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True))(inputs)
    return inputs, layers.Dense(2)(layers.Dense(6)(x))


class Nameless(layers.Layer):
    """As people write them: the configuration leaves out the name."""

    def __init__(self, units):
        super().__init__()
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight((shape[-1], self.units), name="kernel")

    def call(self, x):
        return x @ self.kernel

    def get_config(self):
        return {"units": self.units}


@model(7)
def layers_without_names():
    inputs = keras.Input((5,))
    x = Nameless(4)(layers.Dense(6)(inputs))
    x = layers.Dense(4)(layers.Dense(7)(Nameless(3)(x)))
    return inputs, layers.Add()([Nameless(3)(x), Nameless(3)(inputs)])


@model(4 + 5 + 7)
def nested_of_dictionaries():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    inner = keras.Model({"a": a, "b": b}, {"p": layers.Dense(5)(a), "q": layers.Dense(7)(b)})
    inputs = keras.Input((3,))
    outputs = inner({"b": inputs, "a": layers.Dense(4)(inputs)})
    return inputs, {"u": layers.Dense(2)(outputs["p"]), "v": layers.Dense(2)(outputs["q"])}


@model(6)
def slices_of_other_axes():
    inputs = keras.Input((5, 3))
    x = layers.Dense(6)(inputs)
    x = ops.where(x > 0, x, 0.1 * x)
    return inputs, layers.Dense(2)(x[:, 0] + x[:, -1, :] + x[:, 1:2][:, 0, ...])


@model(8)
def low_rank_adaptation():
    dense = layers.Dense(8)
    made = keras.Sequential([keras.Input((5,)), layers.Dense(6), dense, layers.Dense(8), layers.Dense(2)])
    dense.enable_lora(2)
    return made


@model(16 + 2 + 4)
def masked_attention():
    inputs = keras.Input((7,), dtype="int32")
    x = layers.Embedding(9, 8, mask_zero=True)(inputs)
    x = x + layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.LayerNormalization()(x + layers.Dense(8)(layers.Dense(16, activation="relu")(x)))
    return inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x))


@model(6 + 8)
def detection_heads():
    inputs = image(3, 16)
    x = conv(inputs, 6, strides=2, activation="relu")
    y = conv(x, 8, strides=2, activation="relu")
    boxes = [layers.Reshape((-1, 4))(conv(each, 12)) for each in (x, y)]
    classes = [layers.Reshape((-1, 3))(conv(each, 9)) for each in (x, y)]
    return inputs, {
        "boxes": layers.Concatenate(axis=1)(boxes),
        "classes": layers.Softmax()(layers.Concatenate(axis=1)(classes)),
    }


@model(6 + 8 + 5 + 5)
def feature_pyramid():
    inputs = image(3, 16)
    a = conv(inputs, 6, strides=2)
    b = conv(a, 8, strides=2)
    p = conv(b, 5, 1)
    q = conv(a, 5, 1) + layers.UpSampling2D(2)(p)
    tower, head = layers.Conv2D(5, 3, padding="same", activation="relu"), layers.Conv2D(2, 1)
    return inputs, [head(tower(p)), head(tower(q))]


@model(8 + 4 + 4)
def operations_with_a_constant_per_channel():
    inputs = image()
    x = conv(inputs, 8)
    x = conv(ops.clip(conv(x, 4), [0.0] * 4, [1.0] * 4), 4)
    return inputs, head(ops.max_pool(ops.clip(conv(x, 4), 0, 1), 2))


@model(4 + 4 + 6 + 5)
def attention_between_sequences():
    """Heads of other sizes for keys and values, an output of another size, a mask, and keyword arguments."""
    inputs, other = keras.Input((5, 3)), keras.Input((7, 3))
    mask = keras.Input((5, 7), dtype="bool")
    query, memory = layers.Dense(4)(inputs), layers.Dense(6)(other)
    attention = layers.MultiHeadAttention(4, 3, 5, output_shape=4, use_bias=False)
    x = attention(query, value=memory, attention_mask=mask)
    return [inputs, other, mask], layers.Dense(2)(x + query)


@model(3 + 4 + 6)
def attention_over_images():
    inputs = image()
    x = conv(inputs, 6)
    x = x + layers.MultiHeadAttention(3, 4, attention_axes=2)(x, x, use_causal_mask=True)
    return inputs, head(x)


@model(3 + 3 + 6)
def group_normalization_in_a_residual_network():
    inputs = image()
    x = layers.GroupNormalization(3)(conv(inputs, 6, use_bias=False))
    y = conv(layers.ReLU()(layers.GroupNormalization(-1)(conv(x, 6))), 6)
    x = layers.Add()([x, layers.GroupNormalization(3, axis=3, scale=False)(y)])
    return inputs, head(layers.GroupNormalization(3, center=False)(conv(x, 6)))


@model(6)
def normalization_of_each_channel_and_of_all():
    inputs = image()
    x = layers.LayerNormalization(axis=(1, 2))(conv(inputs, 6))
    return inputs, head(layers.LayerNormalization()(conv(x, 4)) + layers.GroupNormalization(1)(conv(x, 4)))


@model(5 + 4 + 6 + 3)
def recurrent_layers():
    inputs = keras.Input((7, 3))
    x = layers.GRU(5, return_sequences=True, reset_after=False)(inputs)
    x = layers.GRU(4, return_sequences=True, go_backwards=True)(layers.BatchNormalization()(x))
    x = layers.LSTM(6, return_sequences=True, dropout=0.1, activation="relu")(x)
    return inputs, layers.Dense(2)(layers.SimpleRNN(3, use_bias=False)(x))


@model(4 + 3 + 5)
def recurrent_layers_in_both_directions():
    inputs = keras.Input((7, 3))
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(inputs)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="mul")(x)
    back = layers.SimpleRNN(5, go_backwards=True)
    return inputs, layers.Dense(2)(layers.Bidirectional(layers.SimpleRNN(5), backward_layer=back)(x))


@model(4 + 3)
def recurrent_convolutions():
    inputs = keras.Input((3, 6, 6, 2))
    x = layers.ConvLSTM2D(4, 3, padding="same", return_sequences=True)(inputs)
    return inputs, head(layers.ConvLSTM2D(3, 3, strides=2)(x))


@model(6 + 4 + 5)
def layers_at_each_time():
    inputs = keras.Input((2, 8, 8, 3))
    x = layers.TimeDistributed(layers.Conv2D(6, 3, activation="relu"))(inputs)
    x = layers.TimeDistributed(layers.BatchNormalization())(x)
    x = layers.TimeDistributed(layers.SeparableConv2D(4, 3))(x)
    x = layers.TimeDistributed(layers.Flatten())(layers.TimeDistributed(layers.MaxPooling2D())(x))
    return inputs, layers.Dense(2)(layers.LSTM(5)(x))


@model(0)
def recurrent_states():
    inputs = keras.Input((7, 3))
    x, state = layers.GRU(4, return_state=True)(inputs)
    return inputs, layers.Dense(2)(layers.Dropout(0.1)(x) + state)


@model(2 + 6)
def attention_of_query_groups():
    inputs = keras.Input((5, 3))
    x = layers.Dense(6)(inputs)
    x = x + layers.GroupQueryAttention(3, 4, 2)(x, value=x, use_causal_mask=True)
    return inputs, layers.Dense(2)(x)
