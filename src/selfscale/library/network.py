"""The network that is being minimized: a plain model, masks on its channels, and their training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from selfscale.library.examples import Batch
from selfscale.library.metric import Metric
from selfscale.library.training import ChannelTrainer
from selfscale.nn.channel_masks import ChannelMasks
from selfscale.nn.graph import ChannelGraph, Group, Keep, trace
from selfscale.nn.graph_bypasses import Bypass
from selfscale.nn.graph_recording import weight_of
from selfscale.nn.graph_walk import every_layer
from selfscale.nn.rewriting import rewrite
from selfscale.search.channel_importance import Arrays


@dataclass(frozen=True)
class Task:
    """What a network is trained and judged by; the same for all networks of a minimization."""

    optimizer: keras.optimizers.Optimizer
    loss: Any
    loss_weights: Any
    metric: Metric
    validation: Sequence[Batch]
    trust_lambda: bool = False


class Network:
    """A plain model with masks; what is compiled for it stays so while channels are masked.

    Args:
        model: Model of its own, whose weights change.
        task: How it is trained and judged.
    """

    def __init__(self, model: keras.Model, task: Task) -> None:
        self.model, self.task = model, task
        self.graph: ChannelGraph = trace(model, trust_lambda=task.trust_lambda)
        self.masks = ChannelMasks(model, self.graph)
        self.trainer = ChannelTrainer(model, self.masks, task.optimizer, task.loss, task.loss_weights)
        self.names = unique_names(self.graph.groups)
        self._evaluate: Callable[[Sequence[Batch]], np.ndarray] = task.metric.compiled(model)
        self._gradients = tf.function(self._loss_gradients, reduce_retracing=True)

    @property
    def keep(self) -> dict[int, np.ndarray]:
        """Which channels are left, of all groups."""
        return {group.index: np.ones(group.size, bool) for group in self.graph.groups} | dict(self.masks.keep)

    @property
    def widths(self) -> dict[str, int]:
        """Number of channels that are left of each group, by its name."""
        return {self.names[index]: int(mask.sum()) for index, mask in self.keep.items()}

    def removable(self, protect: Sequence[str]) -> list[Group]:
        """Return the groups that may lose a channel, none of whose producers is protected."""
        keep = self.keep
        return [
            group
            for group in self.graph.groups
            if group.removable
            and keep[group.index].sum() > 1
            and not any(set(slice.layer) & set(protect) for slice in group.producers)
        ]

    def disable(self, channels: Mapping[str, np.ndarray]) -> None:
        for name, numbers in channels.items():
            self.masks.disable(self.names.index(name), numbers)

    def evaluate(self) -> np.ndarray:
        """Return the metric's sums per validation example, as those of a loss."""
        return self._evaluate(self.task.validation)

    def finite(self) -> bool:
        """Return whether all weights are finite: a ReLU hides those that are not."""
        return all(np.isfinite(weight.astype(np.float32)).all() for weight in self.model.get_weights())

    def bypasses(self, protect: Sequence[str] = ()) -> dict[str, Bypass]:
        """Return the branches and layers that may go now, by name."""
        kept = self.graph.kept(self.masks.keep)
        return {
            bypass.name: bypass
            for bypass in (*self.graph.branches, *self.graph.layers)
            if np.array_equal(*(kept[ids] for ids in bypass.channels))
            and not any(set(layer) & set(protect) for layer in bypass.layers)
        }

    def compact(self, keep: Keep | None = None, without: Sequence[str] = ()) -> keras.Model:
        """Return the plain model of the channels in `keep` only, without some branches.

        By default without the masked channels.
        """
        bypasses = self.bypasses() if without else {}
        gone = [bypasses[name] for name in without]
        return rewrite(self.model, self.graph, self.masks.keep if keep is None else keep, without=gone)

    def weights(self) -> Arrays:
        """Return the weights that the graph knows, by layer and name."""
        return {key: variable.numpy() for key, variable in self._variables().items()}

    def gradients(self, batches: Iterable[Batch]) -> Sequence[Arrays]:
        """Return the gradients of the loss on each batch, by layer and weight."""
        places = {id(v): key for key, v in self._variables().items()}
        keys = [places.get(id(variable)) for variable in self.model.trainable_variables]
        found = []
        for batch in batches:
            values = self._gradients(*batch)
            found.append({key: np.asarray(v) for key, v in zip(keys, values, strict=True) if key is not None})
        return found

    def _variables(self) -> dict[tuple[tuple[str, ...], str], Any]:
        layers = dict(every_layer(self.model))
        return {(path, weight): weight_of(layers[path], weight) for path, weight in self.graph.weights}

    def _loss_gradients(self, x: Any, y: Any, weights: Any) -> list[tf.Tensor]:
        variables = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            outputs = self.model(x, training=False)
            loss = self.model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=weights, training=False)
        return tape.gradient(loss, variables, unconnected_gradients="zero")


def unique_names(groups: Sequence[Group]) -> list[str]:
    """Return a name for each group, that of its first producer, numbered where several have the same."""
    found: list[str] = []
    for group in groups:
        count = sum(name.partition(" (")[0] == group.name for name in found)
        found.append(f"{group.name} ({count + 1})" if count else group.name)
    return found
