"""The channels of the architectures of keras.applications: groups, exactness, and the time that it takes.

python benchmarks/architectures.py            the table, some minutes of one core
python benchmarks/architectures.py --step     what masks cost a training step of a ResNet-20
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from rows import in_turns

from selfscale.nn.channel_masks import ChannelMasks
from selfscale.nn.graph import ChannelGraph, trace
from selfscale.nn.rewriting import random_inputs, rewrite, verify

# One of each family, at a small size that nearly all take.
NAMES = (
    "VGG16 ResNet50 ResNet50V2 MobileNet MobileNetV2 MobileNetV3Small EfficientNetB0 EfficientNetV2B0 "
    "DenseNet121 Xception InceptionV3 InceptionResNetV2 NASNetMobile ConvNeXtTiny"
)
SIDE, SHARE, CLASSES = 96, 1 / 3, 10


def random_vectors(model: keras.Model, rng: np.random.Generator) -> None:
    """Give biases, scales and statistics other values than the initial zeros and ones."""
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(weight.numpy() + 0.1 * rng.random(weight.shape))


def random_third(graph: ChannelGraph, rng: np.random.Generator) -> dict[int, np.ndarray]:
    keep = {}
    for group in graph.removable():
        mask = rng.random(group.size) >= SHARE
        mask[rng.integers(group.size)] = True
        keep[group.index] = mask
    return keep


def busy(call: Callable[[], object]) -> float:
    """Return the seconds of the processor that a call takes: other processes do not count."""
    started = time.process_time()
    call()
    return time.process_time() - started


def row(name: str) -> tuple[str, ...]:
    """Trace one architecture, remove a random third of its channels, compare with the masked model."""
    rng = np.random.default_rng(0)
    side = 224 if name == "NASNetMobile" else SIDE  # its only one without weights
    model = getattr(keras.applications, name)(weights=None, input_shape=(side, side, 3), classes=CLASSES)
    random_vectors(model, rng)
    graphs: list[ChannelGraph] = []
    tracing = busy(lambda: graphs.append(trace(model)))
    graph = graphs[0]
    keep = random_third(graph, rng)
    compact: list[keras.Model] = []
    compaction = busy(lambda: compact.append(rewrite(model, graph, keep)))
    inputs = random_inputs(model, 1)
    masks = ChannelMasks(model, graph)
    for index, mask in keep.items():
        masks.disable(index, np.flatnonzero(~mask))
    before, after = graph.cost(), graph.cost(keep)
    groups = graph.removable()
    return (
        name,
        str(len(groups)),
        f"{sum(group.size for group in groups):,}",
        f"{len(graph.branches)}",
        f"{verify(model, compact[0], inputs):.1g}",
        f"{after.macs / before.macs:.0%}",
        f"{after.parameters / before.parameters:.0%}",
        f"{tracing:.2f} s",
        f"{compaction:.1f} s",
    )


def resnet20(shape: tuple[int, int, int] = (32, 32, 3)) -> keras.Model:
    """Return a ResNet-20 (He et al. 2016, section 4.2), padded and normalized as PyTorch does by default."""
    inputs = keras.Input(shape)

    def convolution(
        x: keras.KerasTensor, name: str, filters: int, strides: int = 1, size: int = 3
    ) -> keras.KerasTensor:
        if strides > 1 and size > 1:
            x = layers.ZeroPadding2D()(x)
        padding = "same" if strides == 1 else "valid"
        x = layers.Conv2D(filters, size, strides, padding, use_bias=False, name=name)(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)

    x = layers.ReLU()(convolution(inputs, "stem", 16))
    for stage, filters in enumerate((16, 32, 64)):
        for number in range(3):
            block, strides = f"block{stage}{number}", 2 if stage and not number else 1
            y = layers.ReLU()(convolution(x, f"{block}_first", filters, strides))
            y = convolution(y, f"{block}_second", filters)
            shortcut = convolution(x, f"{block}_shortcut", filters, strides, 1) if strides > 1 else x
            x = layers.ReLU()(layers.Add()([y, shortcut]))
    outputs = layers.Dense(10, name="classes")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name="resnet20")


def step_ratios(repetitions: int = 30, batch: int = 64) -> list[float]:
    """Return the time of a training step with masks over that of a plain one, measured in turns."""
    rng = np.random.default_rng(0)
    images = tf.constant(rng.random((batch, 32, 32, 3), np.float32))
    labels = tf.constant(rng.integers(0, 10, batch))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def timed(masked: bool) -> tf.types.experimental.PolymorphicFunction:
        model = resnet20()
        optimizer = keras.optimizers.Adam()
        optimizer.build(model.trainable_variables)
        masks = ChannelMasks(model, graph := trace(model))
        for index, mask in random_third(graph, rng).items():
            masks.disable(index, np.flatnonzero(~mask))

        @tf.function
        def step() -> tf.Tensor:
            with tf.GradientTape() as tape:
                value = loss(labels, model(images, training=True))
            gradients = tape.gradient(value, [weight.value for weight in model.trainable_variables])
            if masked:
                masks.apply(optimizer, gradients)
            else:
                optimizer.apply(gradients, model.trainable_variables)
            return value

        return step

    ours, plain = timed(True), timed(False)

    times = in_turns(repetitions, lambda: busy(lambda: ours().numpy()), lambda: busy(lambda: plain().numpy()))
    return [a / b for a, b in zip(*times, strict=True)]


def main() -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if "--step" in sys.argv:
        ratios = step_ratios()
        low, high = np.quantile(ratios, (0.25, 0.75))
        print(f"training step with masks over the plain one: {median(ratios):.3f} ({low:.3f} to {high:.3f})")
        return
    columns = "model groups channels branches difference MACs_left parameters_left trace compact"
    print("| " + " | ".join(column.replace("_", " ") for column in columns.split()) + " |")
    print("|---|" + "---:|" * 8)
    for name in [name for name in sys.argv[1:] if not name.startswith("-")] or NAMES.split():
        print("| " + " | ".join(row(name)) + " |", flush=True)
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
