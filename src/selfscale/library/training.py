"""Training sessions of any compiled Keras model with masks, by one compiled step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from selfscale.library.examples import Batch
from selfscale.nn.channel_masks import ChannelMasks
from selfscale.nn.optimizers import learning_rates

WARMUP = 0.1
SCHEDULE_STEPS = 10_000  # in which a schedule's highest learning rate is looked for


def fresh(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return the same optimizer without what it has accumulated, at its highest learning rate."""
    config = optimizer.get_config()
    if "inner_optimizer" in config:  # LossScaleOptimizer
        return type(optimizer)(fresh(optimizer.inner_optimizer))
    rate = config["learning_rate"]
    if isinstance(rate, dict):
        schedule = keras.optimizers.schedules.deserialize(rate)
        rate = max(float(schedule(step)) for step in range(0, SCHEDULE_STEPS, SCHEDULE_STEPS // 100))
    return type(optimizer).from_config({**config, "learning_rate": float(rate)})


class ChannelTrainer:
    """Train one masked model; compiled once, whatever is masked afterwards.

    Args:
        model: Plain model, which is compiled anew.
        masks: Its masks.
        optimizer: Its settings count only; see `fresh`.
        loss: As `compile` takes it.
        loss_weights: As `compile` takes them.
    """

    def __init__(
        self,
        model: keras.Model,
        masks: ChannelMasks,
        optimizer: keras.optimizers.Optimizer,
        loss: Any,
        loss_weights: Any = None,
    ) -> None:
        self.model, self.masks = model, masks
        model.compile(fresh(optimizer), loss=loss, loss_weights=loss_weights, jit_compile=False)
        # `compile` may have wrapped it, for mixed precision.
        self.optimizer = model.optimizer
        self.peak = float(self.optimizer.learning_rate)
        self.optimizer.build(model.trainable_variables)
        self._start = [variable.numpy() for variable in self.optimizer.variables]
        self._step = tf.function(self._train_step, reduce_retracing=True)

    def session(
        self,
        batches: Iterator[Batch],
        steps: int,
        seed: Sequence[int],
        rate: float = 1.0,
        plateau: float = 0.0,
    ) -> float:
        """Train from the present weights with a reset optimizer; return the mean loss.

        Args:
            batches: Training data, without end.
            steps: Training steps, in which the learning rate warms up and decays to zero once.
            seed: Of dropout and the like.
            rate: Peak of the learning rate, of the optimizer's.
            plateau: Share of the steps after the warm-up that stay at the peak.
        """
        for variable, value in zip(self.optimizer.variables, self._start, strict=True):
            variable.assign(value)
        self._seed(np.random.default_rng(seed))
        total = 0.0
        for value in learning_rates(steps, rate * self.peak, WARMUP, plateau):
            self.optimizer.learning_rate.assign(value)
            total += float(self._step(*next(batches)))
        return total / max(1, steps)

    def _seed(self, rng: np.random.Generator) -> None:
        """Give dropout and the like random numbers of this session alone."""
        weights = {id(variable) for variable in self.model.weights}
        for variable in self.model.variables:
            if id(variable) not in weights and tuple(variable.shape) == (2,) and "seed" in variable.path:
                variable.assign(rng.integers(0, 2**31, 2))

    def _train_step(self, x: Any, y: Any, weights: Any) -> tf.Tensor:
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = self.model(x, training=True)
            loss = self.model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=weights, training=True)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        self.masks.apply(self.optimizer, gradients)
        return loss
