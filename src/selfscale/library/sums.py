"""Sums and counts of each example, from the values of a metric or a loss at the outputs of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from selfscale.errors import unknown

Function = Callable[[Any, Any], Any]


def at_output(
    function: Function, name: str, output: str | None, names: list[str]
) -> Callable[..., tf.Tensor]:
    """Return a function of `(y_true, y_pred)` as sums and counts per example, at one output or all."""

    def sums(y: Any, outputs: Any, weights: Any) -> tf.Tensor:
        if output is not None:
            y, outputs, weights = (at(nest, output, names) for nest in (y, outputs, weights))
        return table(function(y, outputs), weights, name, examples_of(y))

    return sums


def total_loss(
    functions: Mapping[str, Function], weights_by_output: Any, names: list[str]
) -> Callable[..., tf.Tensor]:
    """Return the loss as sums per example; those of several outputs are added with their weights.

    Args:
        functions: Losses per example, by output.
        weights_by_output: Of `compile`.
        names: Of all outputs.
    """

    def sums(y: Any, outputs: Any, weights: Any) -> tf.Tensor:
        total = tf.constant(0.0, tf.float64)
        for name, function in functions.items():
            own = [at(nest, name, names) for nest in (y, outputs, weights)]
            found = table(function(*own[:2]), own[2], "loss", examples_of(own[0]))
            factor = at(weights_by_output, name, names) if weights_by_output else 1.0
            scale = tf.constant([factor, 1.0], tf.float64)
            total += found * scale if len(functions) == 1 else means(found) * factor
        if len(functions) == 1:
            return total
        return tf.stack([total, tf.ones_like(total)], axis=1)

    return sums


def table(values: Any, weights: Any, name: str, examples: Any) -> tf.Tensor:
    """Return numerators and denominators per example, float64 of shape `(examples, 2)`."""
    if isinstance(values, tuple | list) and len(values) == 2:
        found = [tf.cast(value, tf.float64) for value in values]
        check_rank(found[0], name)
        return tf.stack([tf.reshape(value, (examples,)) for value in found], axis=1)
    values = tf.cast(values, tf.float64)
    check_rank(values, name)
    counts = tf.ones_like(values)
    if weights is not None:
        weights = tf.cast(weights, tf.float64)
        while len(weights.shape) < len(values.shape):
            weights = weights[..., None]
        if len(weights.shape) > len(values.shape):
            weights = tf.squeeze(weights, -1)
        counts *= weights
    axes = list(range(1, len(values.shape)))
    return tf.stack([tf.reduce_sum(values * counts, axes), tf.reduce_sum(counts, axes)], axis=1)


def check_rank(values: tf.Tensor, name: str) -> None:
    if not len(values.shape):
        raise ValueError(
            f"metric: {name} gives one number a batch, but one value per example decides; average over all "
            "axes but the first, or give another metric"
        )


def means(found: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(found[:, 0], found[:, 1])


def examples_of(y: Any) -> Any:
    return tf.shape(keras.tree.flatten(y)[0])[0]


def at(nest: Any, name: str, names: list[str]) -> Any:
    """Return the part of a nest that belongs to an output, by its name or position."""
    if isinstance(nest, Mapping):
        return nest.get(name)
    if isinstance(nest, tuple | list):
        return nest[names.index(name)]
    return nest


def output_names(model: keras.Model) -> list[str]:
    """Return the names of a model's outputs, as `compile` takes them, in the order of `model.outputs`.

    Those of a dict are its keys; a sequential model has the name of its last layer.
    """
    structure = None if isinstance(model, keras.Sequential) else model.output
    if isinstance(structure, Mapping) and len(structure) == len(model.outputs):
        return sorted(structure)
    return list(getattr(model, "output_names", None) or [model.layers[-1].name])


def check_names(nest: Any, names: list[str], needed: Iterable[str], where: str) -> None:
    """Raise ValueError if a dict by output has a name too many, or lacks one."""
    if isinstance(nest, Mapping):
        for name in nest:
            if name not in names:
                raise ValueError(unknown(where, name, names))
        for name in needed:
            if name not in nest:
                raise ValueError(f"{where}: '{name}' is missing; there are {', '.join(nest)}")
