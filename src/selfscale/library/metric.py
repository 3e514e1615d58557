"""The metric that decides: sums and counts of each validation example, so that networks are paired."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from selfscale.errors import unknown
from selfscale.library.examples import Batch
from selfscale.library.sums import Function, at, at_output, output_names, total_loss

Direction = Literal["lower", "higher"]
KEYS = ("name", "dtype", "fn")  # of a Keras metric's configuration; the others are arguments
ACCURACY = ("accuracy", "acc")


@dataclass(frozen=True)
class Metric:
    """A metric by its numerator and denominator per example.

    Attributes:
        name: For reports.
        higher: Whether higher is better.
        function: `(y_true, y_pred, sample_weight)` to float64 of shape `(examples, 2)`.
        outputs: Those of several outputs that it judges; empty: all.
    """

    name: str
    higher: bool
    function: Callable[[Any, Any, Any], tf.Tensor]
    outputs: tuple[str, ...] = ()

    def sums(self, model: keras.Model, batches: Sequence[Batch]) -> np.ndarray:
        """Return the sums per example as those of a loss: where higher is better, its reciprocal."""
        return self.compiled(model)(batches)

    def compiled(self, model: keras.Model) -> Callable[[Sequence[Batch]], np.ndarray]:
        """Return the evaluation of one model, compiled once."""

        @tf.function
        def evaluate(x: Any, y: Any, weights: Any) -> tf.Tensor:
            return self.function(y, as_floats(model(x, training=False)), weights)

        traced: list[Callable[..., tf.Tensor]] = []

        def all_of(batches: Sequence[Batch]) -> np.ndarray:
            if not traced:  # once, and not again for a last batch of fewer examples
                traced.append(evaluate.get_concrete_function(*tf.nest.map_structure(shared, *batches)))
            table = np.concatenate([traced[0](*batch).numpy() for batch in batches])
            return table[:, ::-1] if self.higher else table

        return all_of

    def score(self, sums: np.ndarray) -> float:
        """Return the metric itself, from what `sums` returned."""
        numerator, denominator = sums.sum(axis=0)[:: -1 if self.higher else 1]
        return float(numerator / denominator) if denominator else float("nan")


def shared(*leaves: Any) -> Any:
    """Return the `tf.TensorSpec` of tensors: their dtype, and the axes of which they have the same length."""
    first = leaves[0]
    if first is None:
        return None
    if any(leaf.shape.rank != first.shape.rank for leaf in leaves):
        return tf.TensorSpec(None, first.dtype)
    axes = zip(*(leaf.shape for leaf in leaves), strict=True)
    return tf.TensorSpec([lengths[0] if len(set(lengths)) == 1 else None for lengths in axes], first.dtype)


def deciding(model: keras.Model, loss: Any, metric: Any = None, direction: Direction | None = None) -> Metric:
    """Return the metric that decides.

    Args:
        model: Names the outputs, and has the metrics of `compile`.
        loss: As `compile` takes it.
        metric: A Keras metric that is a mean over examples, a Keras loss, the name of one, `"loss"`, a
            function of `(y_true, y_pred)` that returns a value for each example, or sums and counts; or a
            dict of one of these by the output that it judges. None: the first such metric of `compile`,
            or else the loss.
        direction: Whether `"lower"` or `"higher"` is better, for a function of one's own.

    Raises:
        ValueError: It gives no values per example, or it is not known which are better.
    """
    names = output_names(model)
    if metric is None:
        for output, each in compiled_metrics(model):
            try:
                function, higher = resolved(each)
            except ValueError:
                continue
            if higher is not None and (output or len(names) == 1):
                return metric_at(output, each, function, higher, names)
    if metric is None or (isinstance(metric, str) and metric == "loss"):
        losses = losses_by_output(loss, names)
        return Metric("loss", False, total_loss(losses, loss_weights(model), names), tuple(losses))
    output = None
    if isinstance(metric, Mapping):
        if len(metric) != 1:
            raise ValueError("metric: one metric decides; give a dict of one output and its metric")
        ((output, metric),) = metric.items()
        if output not in names:
            raise ValueError(unknown("metric", output, names))
    elif not callable(metric) or isinstance(metric, keras.losses.Loss | keras.metrics.Metric):
        if len(names) > 1:  # a function of the user's gets all of them
            raise ValueError(
                f"metric: {name_of(metric)} judges one output, but the model has {', '.join(names)}; give "
                f"a dict, such as {{'{names[0]}': {name_of(metric)!r}}}"
            )
        output = names[0]
    function, higher = resolved(metric)
    if direction is not None:
        higher = direction == "higher"
    if higher is None:
        raise ValueError(
            f"metric: whether lower or higher values of {name_of(metric)} are better is not known; "
            "add direction='lower' or direction='higher'"
        )
    return metric_at(output, metric, function, higher, names)


def metric_at(output: str | None, metric: Any, function: Function, higher: bool, names: list[str]) -> Metric:
    """Return a metric of one output, named `output_metric` as Keras does where there are several."""
    name = f"{output}_{name_of(metric)}" if output and len(names) > 1 else name_of(metric)
    return Metric(name, higher, at_output(function, name, output, names), (output,) if output else ())


def losses_by_output(loss: Any, names: list[str]) -> dict[str, Function]:
    """Return the losses per example; raises ValueError if there is none."""
    several = isinstance(loss, Mapping | list | tuple)
    parts = {name: at(loss, name, names) for name in names} if several else dict.fromkeys(names, loss)
    functions = {name: resolved(each)[0] for name, each in parts.items() if each is not None}
    if not functions:
        raise ValueError("metric: the model has no loss of outputs and targets; give a metric that decides")
    return functions


def resolved(metric: Any) -> tuple[Function, bool | None]:
    """Return the values per example of a Keras metric, loss, name or function, and if higher is better."""
    if isinstance(metric, str) and metric in ACCURACY:
        return accuracy, True
    if isinstance(metric, str):
        metric = named(metric)
    if isinstance(metric, type) and issubclass(metric, keras.losses.Loss | keras.metrics.Metric):
        metric = metric()
    if isinstance(metric, keras.losses.Loss):
        return metric.call, False
    if isinstance(metric, keras.metrics.MeanMetricWrapper):
        config = keras.metrics.MeanMetricWrapper.get_config(metric)
        arguments = {key: value for key, value in config.items() if key not in KEYS}
        try:
            function = keras.saving.deserialize_keras_object(config["fn"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"metric: {metric.name}: give its function itself") from error
        return lambda y, outputs: function(y, outputs, **arguments), direction_of(metric.name, function)
    if isinstance(metric, keras.metrics.Metric):
        raise ValueError(
            f"metric: {metric.name} gives one number a batch, but one value per example decides; give a "
            "function of (y_true, y_pred) that returns a value, or sums and counts, for each example"
        )
    if not callable(metric):
        raise ValueError(f"metric: must be a metric, a loss, a name or a function, not {metric!r}")
    return lambda y, outputs: metric(*as_floats((y, outputs))), direction_of(name_of(metric), metric)


def named(name: str) -> Any:
    """Return the Keras metric or loss of that name."""
    for get in (keras.metrics.get, keras.losses.get):
        try:
            return get(name)
        except (TypeError, ValueError):
            continue
    known = [n for n in dir(keras.metrics) if n.islower() and not n.startswith("_")]
    raise ValueError(unknown("metric", name, [*known, "accuracy", "loss"]))


def direction_of(name: str, function: Any) -> bool | None:
    """Return whether higher is better, for what Keras has; None: not known."""
    if not getattr(function, "__module__", "").startswith("keras."):
        return None
    if "accuracy" in name or "cosine_similarity" in name:
        return True
    return False if getattr(keras.losses, getattr(function, "__name__", ""), None) is function else None


def accuracy(y: Any, outputs: Any) -> Any:
    """Return the accuracy that fits the shapes, as `metrics=["accuracy"]` in `compile` does."""
    classes, labels = outputs.shape[-1], y.shape[-1] if len(y.shape) else None
    if classes == 1 or (len(y.shape) == 1 and len(outputs.shape) == 1):
        return keras.metrics.binary_accuracy(tf.reshape(y, tf.shape(outputs)), outputs)
    if len(y.shape) < len(outputs.shape) or labels == 1:
        return keras.metrics.sparse_categorical_accuracy(y, outputs)
    return keras.metrics.categorical_accuracy(y, outputs)


def compiled_metrics(model: keras.Model) -> list[tuple[str | None, Any]]:
    """Return the metrics that `compile` was given, with the output of each if it was named."""
    config = model.get_compile_config() or {}
    found: list[tuple[str | None, Any]] = []
    for group in (config.get("metrics"), config.get("weighted_metrics")):
        names = output_names(model)
        if isinstance(group, Mapping) and not {"class_name", "config"} <= set(group):
            pairs = [(output, each) for output, each in group.items()]
        elif isinstance(group, list) and len(names) > 1 and len(group) == len(names):
            pairs = list(zip(names, group, strict=True))
        else:
            pairs = [(names[0] if len(names) == 1 else None, group)]
        for output, each in pairs:
            for one in each if isinstance(each, list) else [each]:
                try:
                    known = one if isinstance(one, str) else keras.saving.deserialize_keras_object(one)
                except (TypeError, ValueError):
                    continue  # a function of one's own, which has to be given by `metric`
                if known is not None:
                    found.append((output, known))
    return found


def loss_weights(model: keras.Model) -> Any:
    return (model.get_compile_config() or {}).get("loss_weights")


def name_of(metric: Any) -> str:
    if isinstance(metric, str):
        return metric
    name = getattr(metric, "name", None) or getattr(metric, "__name__", None) or type(metric).__name__
    return str(name)


def as_floats(nest: Any) -> Any:
    """Return a nest with float32 for floats of any precision, as in metrics of `compile`."""
    return keras.tree.map_structure(lambda v: tf.cast(v, tf.float32) if v.dtype.is_floating else v, nest)
