"""Importance of the channels of any model's groups: which of them go first.

A strategy returns, for each group, how important each of its channels is, at least 0. Channels are then
ordered by importance divided by the cost that goes with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from selfscale.errors import UserError
from selfscale.plugins import Registry

if TYPE_CHECKING:  # with TensorFlow, which a check of the settings does without
    from selfscale.nn.graph import Group, Slice

Arrays = Mapping[tuple[tuple[str, ...], str], np.ndarray]  # by layer and weight


@dataclass(frozen=True)
class ChannelSubject:
    """What a strategy may look at.

    Attributes:
        groups: Groups that may lose channels; see `selfscale.nn.graph.Group`.
        weights: The model's weights by layer and name.
        gradients: Returns those of the loss, on each of some training batches.
        rng: Random numbers of this decision.
    """

    groups: Sequence[Group]
    weights: Arrays
    gradients: Callable[[], Sequence[Arrays]]
    rng: np.random.Generator


Importance = Sequence[np.ndarray]
ChannelStrategy = Callable[[ChannelSubject], Importance]
CHANNEL_STRATEGIES: Registry[ChannelStrategy] = Registry("strategy")


@CHANNEL_STRATEGIES.register
def taylor(subject: ChannelSubject) -> Importance:
    """The change of the loss to first order, by a gate where the channel is read.

    Molchanov et al. 2019 (arXiv:1906.10771), equation 8, mean over batches; the derivative by the gate
    is the sum of weight times gradient over all weights that read the channel.
    """
    batches = subject.gradients()
    found = []
    for group in subject.groups:
        gates = [per_channel(group.size, group.readers, product(subject.weights, each)) for each in batches]
        found.append(np.square(gates).mean(axis=0))
    return found


@CHANNEL_STRATEGIES.register
def magnitude(subject: ChannelSubject) -> Importance:
    """The mean absolute weight that computes the channel (Li et al. 2017, arXiv:1608.08710)."""
    found = []
    for group in subject.groups:
        sums = per_channel(group.size, group.producers, lambda s: np.abs(value(subject.weights, s)))
        counts = per_channel(group.size, group.producers, lambda s: np.ones_like(value(subject.weights, s)))
        found.append(sums / np.maximum(counts, 1))
    return found


@CHANNEL_STRATEGIES.register
def group_norm(subject: ChannelSubject) -> Importance:
    """The L2 norm over all weights of the channel, in every layer that it lies in.

    Relative to the mean of its group (Fang et al. 2023, DepGraph, arXiv:2301.12900).
    """
    found = []
    for group in subject.groups:
        slices = [*group.producers, *group.followers, *group.readers]
        norms = np.sqrt(per_channel(group.size, slices, lambda s: np.square(value(subject.weights, s))))
        found.append(norms / max(norms.mean(), 1e-12))
    return found


@CHANNEL_STRATEGIES.register
def random(subject: ChannelSubject) -> Importance:
    """Any order, with equal chances."""
    return [subject.rng.random(group.size) for group in subject.groups]


def product(weights: Arrays, gradients: Arrays) -> Callable[[Slice], np.ndarray]:
    """Return weight times gradient at a slice; zeros where a weight is not trained."""
    return lambda slice: value(weights, slice) * gradients.get((slice.layer, slice.weight), 0.0)


def value(arrays: Arrays, slice: Slice) -> np.ndarray:
    return arrays[slice.layer, slice.weight]


def per_channel(size: int, slices: Iterable[Slice], values: Callable[[Slice], np.ndarray]) -> np.ndarray:
    """Return the sum of `values` of each channel over all slices, float64 of shape `(size,)`."""
    total = np.zeros(size)
    for slice in slices:
        array = values(slice).astype(float)
        sums = array.sum(axis=tuple(axis for axis in range(array.ndim) if axis != slice.axis))
        channels = np.repeat(np.arange(size), [len(indices) for indices in slice.indices])
        total += np.bincount(channels, sums[np.concatenate(slice.indices)], minlength=size)
    return total


def importance_of(strategy: ChannelStrategy, subject: ChannelSubject) -> list[np.ndarray]:
    """Return a strategy's importance per group; raises UserError if it is not one number per channel."""
    found = [np.asarray(each, dtype=float) for each in strategy(subject)]
    sizes = [group.size for group in subject.groups]
    if [each.shape for each in found] != [(size,) for size in sizes] or not all(
        np.isfinite(each).all() and (each >= 0).all() for each in found
    ):
        name = getattr(strategy, "__name__", type(strategy).__name__)
        raise UserError(
            f"the strategy {name} must return, for each of {len(sizes)} groups, one finite number of at "
            "least 0 per channel"
        )
    return found
