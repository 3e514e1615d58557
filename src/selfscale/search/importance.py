"""Strategies: the importance of filters, and so which one to try to remove next (thesis 2.3.3).

A strategy scores every candidate, the higher the less important; the one with the highest score that has
not failed since the last accepted decision is tried. So after a failure the second, n-th best is
tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from selfscale.decisions import Filter
from selfscale.errors import UserError
from selfscale.nn.similarity import cosine_similarity
from selfscale.plugins import Registry

if TYPE_CHECKING:  # which imports TensorFlow, and strategies are looked up without it
    from selfscale.nn.probe import Probe


@dataclass(frozen=True)
class Subject:
    """What a strategy may look at.

    Attributes:
        candidates: Filters that may be removed, in order; the only one of its layer stands for the layer.
        active: Which filters are enabled, one boolean array per hidden layer.
        weights: Returns a hidden layer's filters as rows, kernel flattened and bias appended, float32 of
            shape `(filters, n)`, without what reads removed filters; zeros for what was removed.
        last: Filter that was tried last.
        rng: Random numbers of this decision, from the seed.
        probe: Measures all filters on training images.
    """

    candidates: Sequence[Filter]
    active: Sequence[np.ndarray]
    weights: Callable[[int], np.ndarray]
    last: Filter | None
    rng: np.random.Generator
    probe: Probe

    def at_candidates(self, layers: Sequence[np.ndarray]) -> np.ndarray:
        """Return the candidates' entries of one array per hidden layer."""
        return np.array([layers[layer][index] for layer, index in self.candidates], dtype=float)


FAR = 1e6  # further than any two filters are from each other

# (subject, **arguments) -> one finite float per candidate, the highest is tried first.
Strategy = Callable[..., np.ndarray]
# A strategy with its arguments bound.
Select = Callable[[Subject], np.ndarray]
# The first paragraph of a strategy's docstring, which says what it chooses, is also that of docs/params.md.
STRATEGIES: Registry[Strategy] = Registry("strategy")


@STRATEGIES.register
def random(subject: Subject) -> np.ndarray:
    """Any filter, with equal chances (thesis 2.3.3, "naive")."""
    return subject.rng.permutation(len(subject.candidates)).astype(float)


@STRATEGIES.register
def sequential(subject: Subject) -> np.ndarray:
    """Filters in order, layer by layer, going on behind the one tried last (thesis 2.3.3, "naive")."""
    position = sum(candidate <= subject.last for candidate in subject.candidates) if subject.last else 0
    order = (np.arange(len(subject.candidates)) - position) % max(1, len(subject.candidates))
    return -order.astype(float)


@STRATEGIES.register
def cosine(
    subject: Subject, *, over: Literal["mean", "maximum"] = "mean", absolute: bool = True
) -> np.ndarray:
    """The filter most similar to the others of its layer (thesis 2.3.3).

    Cosine similarity between flattened filters with the bias appended, a matrix per layer; a
    filter's score is the mean or the maximum over the other enabled filters of its layer, of the
    signed or the absolute similarity.
    """
    scores = {}
    for layer, active in enumerate(subject.active):
        indices = np.flatnonzero(active)
        similarity = cosine_similarity(subject.weights(layer)[indices])
        similarity = np.abs(similarity) if absolute else similarity
        for row, index in enumerate(indices):
            others = np.delete(similarity[row], row)
            # The only one of its layer is like no other.
            score = (others.mean() if over == "mean" else others.max()) if others.size else -1.0
            scores[Filter(layer, int(index))] = score
    return np.array([scores[candidate] for candidate in subject.candidates])


@STRATEGIES.register
def leave_one_out(subject: Subject, *, refit: bool = True) -> np.ndarray:
    """The filter without which the loss is least, before any retraining.

    With `refit`, after the readers of the filter were fitted to what they put out before, where that
    is better (He et al. 2017, arXiv:1707.06168).
    """
    losses = subject.probe.losses_without(subject.candidates)
    if refit:
        losses = np.minimum(losses, subject.probe.losses_refitted(subject.candidates, subject.rng))
    return -losses


@STRATEGIES.register
def magnitude(subject: Subject) -> np.ndarray:
    """The filter with the least L1 norm of its kernel and bias (Li et al. 2017, arXiv:1608.08710).

    Compared across layers per weight, since filters of later layers have more of them.
    """
    return -subject.at_candidates(
        [np.abs(subject.weights(i)).mean(axis=1) for i in range(len(subject.active))]
    )


@STRATEGIES.register
def taylor(subject: Subject) -> np.ndarray:
    """The filter whose removal changes the loss least to first order.

    Molchanov et al. 2019 (arXiv:1906.10771), equation 8, with a gate behind each filter: the square
    of the loss's derivative by the gate.
    """
    return -np.square(subject.at_candidates(subject.probe.gradients()))


@STRATEGIES.register
def activation(subject: Subject, *, by: Literal["mean", "zeros"] = "mean") -> np.ndarray:
    """The filter that is least active: by its mean activation, or by its share of zeros.

    The latter is the average percentage of zeros (APoZ) of Hu et al. 2016, arXiv:1607.03250.
    """
    if by == "zeros":
        return subject.at_candidates(subject.probe.zeros())
    return -subject.at_candidates(subject.probe.activations())


@STRATEGIES.register
def geometric_median(subject: Subject) -> np.ndarray:
    """The filter closest to the others of its layer, so the one that they can replace best.

    He et al. 2019 (FPGM, arXiv:1811.00250): the least sum of Euclidean distances to the enabled
    filters of the layer; here the mean distance per weight, so that layers can be compared.
    """
    scores = []
    for layer, active in enumerate(subject.active):
        rows = subject.weights(layer)
        distances = np.linalg.norm(rows[:, None] - rows[None, active], axis=-1) / np.sqrt(rows.shape[1])
        # The only one of its layer is close to no other: it comes last.
        alone = active.sum() == 1
        scores.append(np.full(len(rows), FAR) if alone else distances.sum(axis=1) / max(1, active.sum() - 1))
    return -subject.at_candidates(scores)


class HasCandidates(Protocol):
    @property
    def candidates(self) -> Sequence[object]: ...


def scores_of(select: Callable[..., np.ndarray], subject: HasCandidates) -> np.ndarray:
    """Return a strategy's scores as floats; raises UserError if they are not one per candidate."""
    scores, count = select(subject), len(subject.candidates)
    try:
        values = np.asarray(scores, dtype=float)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if values.shape != (count,) or not np.isfinite(values).all():
        found = " ".join(np.array2string(np.asarray(scores), threshold=8).split())
        function = getattr(select, "func", select)  # arguments are bound by a partial
        name = getattr(function, "__name__", type(function).__name__)
        raise UserError(
            f"the strategy {name} must return one finite number for each of {count} candidates, not {found}"
        )
    return values
