"""Measurements of filters on training images, for the strategies; all filters in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import tensorflow as tf

from selfscale.decisions import Filter
from selfscale.nn.blocking import Chain
from selfscale.nn.input_pipeline import Split, spread
from selfscale.nn.losses import LOSSES, ratio
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.metrics import to_float
from selfscale.nn.ratios import quotient
from selfscale.nn.refit import losses_refitted

IMAGES = 32
IMAGES_PER_CALL = 8


class Probe:
    """Measure a masked network on 32 images of a split, spread over its photographs; compiled once."""

    def __init__(self, network: MaskedNetwork, split: Split, loss: str) -> None:
        self._network, self._loss = network, LOSSES[loss]
        self.split = split
        some = spread(split, IMAGES)
        self.images, self.targets = some.images, some.targets

    def losses_without(self, candidates: Sequence[Filter]) -> np.ndarray:
        """Return the loss with each candidate alone disabled, float64 of shape `(candidates,)`."""
        gates = [np.tile(gate, (len(candidates), 1)) for gate in self._gates()]
        position = {layer: position for position, layer in enumerate(self._network.layers)}
        for row, filter in enumerate(candidates):
            gates[position[filter.layer]][row, self._network.channel(filter)] = 0.0
        sums = np.sum([self._sums(*batch, gates).numpy() for batch in self._batches()], axis=0)
        return quotient(sums)

    def losses_refitted(self, candidates: Sequence[Filter], rng: np.random.Generator) -> np.ndarray:
        """Return the loss with each candidate alone disabled and its readers refitted, float64."""

        def loss() -> float:
            gates = [gate[None] for gate in self._gates()]
            sums = np.sum([self._sums(*batch, gates).numpy() for batch in self._batches()], axis=0)
            return float(sums[0, 0] / sums[0, 1])

        return losses_refitted(self._network, candidates, self.images[::2], rng, loss)

    def loss_of(self, network: MaskedNetwork) -> float:
        """Return the loss of another network on the same images."""
        sums = np.zeros(2)
        for images, targets in self._batches():
            output = self._chain(network).on_images(to_float(images))
            pair = self._loss(tf.cast(targets, tf.float32), output)
            sums += [float(tf.reduce_sum(part)) for part in pair]
        return float(quotient(sums))

    def squared_gradient(self, network: MaskedNetwork) -> float:
        """Return the squared norm of the loss's gradient by all weights of another network."""
        variables = network.model.trainable_variables
        sums: list[np.ndarray] = []
        for images, targets in self._batches():
            with tf.GradientTape() as tape:
                output = self._chain(network).on_images(to_float(images))
                loss = ratio(self._loss(tf.cast(targets, tf.float32), output))
            gradients = tape.gradient(loss, [variable.value for variable in variables])
            sums.append(np.concatenate([np.ravel(gradient) for gradient in gradients]))
        return float(np.sum(np.square(np.mean(sums, axis=0, dtype=np.float64))))

    def gradients(self) -> list[np.ndarray]:
        """Return the root mean square over the batches of the loss's derivative by each filter's mask.

        The derivative by a factor on a filter's output is the sum of activation times gradient.
        """
        batches = [self._derivatives(*batch, self._gates()) for batch in self._batches()]
        return self._network.by_filter(
            [np.sqrt(np.mean(np.square(part), axis=0)) for part in zip(*batches, strict=True)]
        )

    def activations(self) -> list[np.ndarray]:
        """Return the mean activation of each filter."""
        return self._network.by_filter([mean for mean, _ in self._statistics()])

    def zeros(self) -> list[np.ndarray]:
        """Return the share of pixels at which each filter's activation is zero."""
        return self._network.by_filter([zeros for _, zeros in self._statistics()])

    def _statistics(self) -> list[np.ndarray]:
        batches = [self._activity(*batch, self._gates()) for batch in self._batches()]
        return [np.mean(layer, axis=0) for layer in zip(*batches, strict=True)]

    def _gates(self) -> list[np.ndarray]:
        """Return the masks as they are, one array per hidden layer that is left."""
        return [enabled.astype(np.float32) for enabled in self._network.enabled()[:-1]]

    def _batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield equal batches; a remainder is left out, unless there is nothing else."""
        size = min(IMAGES_PER_CALL, len(self.images))
        for start in range(0, len(self.images) - size + 1, size):
            yield self.images[start : start + size], self.targets[start : start + size]

    def _chain(self, network: MaskedNetwork) -> Chain:
        return Chain(network.model, self.images.shape[1:3])

    @cached_property
    def _sums(self) -> tf.types.experimental.PolymorphicFunction:
        @tf.function(reduce_retracing=True, autograph=False)
        def sums(images: tf.Tensor, targets: tf.Tensor, gates: list[tf.Tensor]) -> tf.Tensor:
            chain = self._chain(self._network)
            blocks, target = chain.to_blocks(to_float(images)), chain.to_blocks(tf.cast(targets, tf.float32))

            def of_one(one: list[tf.Tensor]) -> tf.Tensor:
                pair = self._loss(target, chain(blocks, gates=one))
                return tf.stack([tf.reduce_sum(tf.cast(part, tf.float64)) for part in pair])

            return tf.map_fn(of_one, gates, fn_output_signature=tf.float64)

        return sums

    @cached_property
    def _derivatives(self) -> tf.types.experimental.PolymorphicFunction:
        @tf.function(reduce_retracing=True, autograph=False)
        def derivatives(images: tf.Tensor, targets: tf.Tensor, gates: list[tf.Tensor]) -> list[tf.Tensor]:
            gates, chain = [tf.convert_to_tensor(gate) for gate in gates], self._chain(self._network)
            with tf.GradientTape() as tape:
                tape.watch(gates)
                output = chain(chain.to_blocks(to_float(images)), gates=gates)
                loss = ratio(self._loss(chain.to_blocks(tf.cast(targets, tf.float32)), output))
            return tape.gradient(loss, gates)

        return derivatives

    @cached_property
    def _activity(self) -> tf.types.experimental.PolymorphicFunction:
        @tf.function(reduce_retracing=True, autograph=False)
        def activity(images: tf.Tensor, targets: tf.Tensor, gates: list[tf.Tensor]) -> list[tf.Tensor]:
            chain, hidden = self._chain(self._network), list[tf.Tensor]()
            chain(chain.to_blocks(to_float(images)), gates=gates, hidden=hidden)
            outputs = [
                tf.reshape(x, (-1, gate.shape[0])) * gate for x, gate in zip(hidden, gates, strict=False)
            ]
            return [
                tf.stack([tf.reduce_mean(x, 0), tf.reduce_mean(tf.cast(x == 0, tf.float32), 0)])
                for x in outputs
            ]

        return activity
