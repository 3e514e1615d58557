"""Growth strategies: where a network is to grow next.

A strategy scores every candidate; the one with the highest score that has not failed since the last
accepted decision is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from selfscale.decisions import WIDEN, GrowthStep
from selfscale.plugins import Registry

if TYPE_CHECKING:
    from selfscale.nn.masking import MaskedNetwork
    from selfscale.nn.probe import Probe


@dataclass(frozen=True)
class GrowthSubject:
    """What a growth strategy may look at.

    Attributes:
        network: Network as it is.
        candidates: Ways to grow.
        grown: For each of them the grown network, of the same output.
        costs: What each adds, in the unit of `growth.per`; float64, positive.
        rng: Random numbers of this decision, from the seed.
        probe: Measures networks on training images.
        train: Trains a network for so many steps, which count as those of the decision, and returns
            the loss on the probe's images.
    """

    network: MaskedNetwork
    candidates: Sequence[GrowthStep]
    grown: Sequence[MaskedNetwork]
    costs: np.ndarray
    rng: np.random.Generator
    probe: Probe
    train: Callable[[MaskedNetwork, int], float]


# (subject, **arguments) -> one finite float per candidate, the highest is tried first.
GrowthStrategy = Callable[..., np.ndarray]
GROWTH_STRATEGIES: Registry[GrowthStrategy] = Registry("growth strategy")


@GROWTH_STRATEGIES.register
def uniform(subject: GrowthSubject) -> np.ndarray:
    """All layers twice as wide, or, once they are four times as wide as they are many, a layer more.

    Depth and width grow in proportion, as in compound scaling (EfficientNet, Tan and Le 2019,
    arXiv:1905.11946). Where the one has failed the other is tried, then the narrowest layer alone.
    """
    network = subject.network
    width = {layer: network.block(layer).filters for layer in network.layers}
    deepest = max(width)
    narrow = sum(width.values()) < 4 * len(width) ** 2  # the mean width is below four times the depth

    def rank(candidate: GrowthStep) -> float:
        if candidate.alteration == WIDEN:
            alone = len(candidate.layers) < len(width)
            return 1 / min(width[layer] for layer in candidate.layers) if alone else 3.0 + narrow
        behind = min(candidate.layers) - 1
        return 3.5 if behind == deepest else float(behind - deepest)

    return np.array([rank(candidate) for candidate in subject.candidates])


@GROWTH_STRATEGIES.register
def widest_gain(subject: GrowthSubject, *, steps: int = 200) -> np.ndarray:
    """Each is tried on a short session of so many steps: the largest fall of the loss for its cost."""
    before = subject.probe.loss_of(subject.network)
    after = np.array([subject.train(network, steps) for network in subject.grown])
    return (before - after) / subject.costs


@GROWTH_STRATEGIES.register
def gradient(subject: GrowthSubject) -> np.ndarray:
    """The largest squared gradient by the weights that are new, for its cost.

    To first order the loss falls by that, times the learning rate, in a step (GradMax, Evci et al.
    2022, arXiv:2201.05125, which chooses the new weights by it; here it compares places, as Wu
    et al. 2020, Firefly, arXiv:2102.08574, do). Growth leaves the old weights' gradients as they
    are, so it is the growth of the whole gradient's squared norm.
    """
    before = subject.probe.squared_gradient(subject.network)
    after = np.array([subject.probe.squared_gradient(network) for network in subject.grown])
    return (after - before) / subject.costs
