"""Ablation of filters (thesis 2.3.1): what is lost without one, who compensates, can it relearn its role.

Three tests of each hidden filter, and one baseline session that alters nothing, since further training
alone changes the loss, too. Each starts from the same checkpoint, with a fresh optimizer, and trains on
the same crops in the same order: they differ in nothing but the alteration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from selfscale.decisions import Filter, SessionRecord
from selfscale.nn.alterations import Alteration, disable, disable_and_freeze, reinitialize
from selfscale.nn.checkpoint import Checkpoint
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.ratios import quotient
from selfscale.nn.similarity import cosine_similarity
from selfscale.nn.trainer import Plan, Trainer
from selfscale.progress import SILENT, Progress
from selfscale.search.acceptance import change_bounds, relative_loss

CONFIDENCE = 0.95
BASELINE = "baseline"
# Of the random numbers, in place of a decision's number: one that no minimization reaches.
STREAM = 2**31


@dataclass(frozen=True)
class ScoreChange:
    """Relative change of a loss (below zero: better), with a two-sided 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Movement:
    """Euclidean distance of a filter's weights from the former ones, relative to the norm of those.

    If that norm was zero, the distance itself.
    """

    filter: Filter
    distance: float


@dataclass(frozen=True)
class Successor:
    """Other filter of the layer that is most similar to the tested one as it was (absolute cosine).

    `before` is its similarity before the session: only a gain is a role taken over.
    """

    filter: Filter
    similarity: float
    before: float


@dataclass(frozen=True)
class AblationRecord:
    """One test of one filter, or the baseline session; scores are validation losses."""

    test: str
    filter: Filter | None  # None: the baseline session
    reference: float  # loss before the alteration
    score_before_training: float
    score: float  # loss after the session
    difference: ScoreChange  # from the reference
    against_baseline: ScoreChange | None  # from the loss after the baseline session
    movements: tuple[Movement, ...]  # of all enabled filters, those of the output layer too
    successor: Successor | None  # None: the layer has no other filter
    # Absolute cosine similarity of a reinitialized filter with itself as it was; None in other tests.
    relearned: float | None
    session: SessionRecord


def reinitialize_alone(network: MaskedNetwork, filters: Sequence[Filter], rng: np.random.Generator) -> None:
    """Reinitialize the filters and freeze all others, the output layer's too."""
    reinitialize(network, filters, rng)
    network.freeze(*(other for other in enabled(network) if other not in filters))


# In the second test the other filters of the layer are frozen, so that only other layers can compensate.
# The disabled one gets no gradient in the first test, either: to freeze it alone would repeat that test.
TESTS: Mapping[str, Alteration] = {
    "disabled": disable,
    "disabled_and_frozen": disable_and_freeze,
    "reinitialized": reinitialize_alone,
}
RELEARNS = "reinitialized"


class State(NamedTuple):
    """A network's filters as rows, float32 `(n,)`, and its loss's sums per photograph, `(N, 2)`."""

    weights: Mapping[Filter, np.ndarray]
    sums: np.ndarray


def ablate(
    trainer: Trainer, steps: int, *, seed: int, progress: Progress = SILENT
) -> Iterator[AblationRecord]:
    """Yield the baseline session, then every possible test of every enabled hidden filter.

    At each yield the trainer is exactly as it was given. The same seed gives the same records, apart
    from the seconds.

    Args:
        trainer: Trainer of a trained network.
        steps: Length of each session.
        seed: Seed of the run.
        progress: Listener.
    """
    network, loss = trainer.network, trainer.loss
    sums = trainer.evaluator(trainer.validation, (loss,)).sums[loss]
    before = State(weights(network, enabled(network)), sums)
    plan = Plan(steps, trainer.settings.evaluations)
    baseline: State | None = None
    progress = progress.of(filters=network.filters_kept)
    for number, (test, filter) in enumerate([(BASELINE, None), *possible(network)]):
        told = progress.of(tried=f"{test} {filter}" if filter else test, done=number * steps)
        score_before, session, after = altered(trainer, test, filter, plan, seed, told)
        new, old = after.weights, before.weights
        yield AblationRecord(
            test=test,
            filter=filter,
            reference=score(before),
            score_before_training=score_before,
            score=score(after),
            difference=paired_difference(after.sums, before.sums),
            against_baseline=paired_difference(after.sums, baseline.sums) if baseline else None,
            movements=tuple(Movement(each, distance(new[each], old[each])) for each in old),
            successor=successor(filter, new, old) if filter else None,
            relearned=similarity(old[filter], new[filter]) if filter and test == RELEARNS else None,
            session=session,
        )
        baseline = baseline or after


def possible(network: MaskedNetwork) -> list[tuple[str, Filter]]:
    """Return the tests of each hidden filter: the only one of its layer cannot be disabled."""
    return [
        (test, filter)
        for filter in network.hidden()
        for test in TESTS
        if network.active[filter.layer].sum() > 1 or test == RELEARNS
    ]


def altered(
    trainer: Trainer, test: str, filter: Filter | None, plan: Plan, seed: int, progress: Progress
) -> tuple[float, SessionRecord, State]:
    """Alter, train and revert; return the loss before the session, the session, and the state after it."""
    network, checkpoint = trainer.network, Checkpoint.take(trainer)
    filters = enabled(network)
    before = weights(network, filters)
    try:
        if filter:
            TESTS[test](network, (filter,), np.random.default_rng((seed, STREAM, 1, *filter)))
        started = before if test == RELEARNS else weights(network, filters)
        trainer.reset()
        score_before = trainer.evaluate_loss()
        session, evaluation = trainer.session(plan, np.random.default_rng((seed, STREAM, 0)), progress)
        after = weights(network, filters)
        for each in filters:  # what read a disabled filter is zero, but has not moved
            after[each] += before[each] - started[each]
        return score_before, session, State(after, evaluation.sums[trainer.loss])
    finally:
        checkpoint.restore(trainer)


def enabled(network: MaskedNetwork) -> list[Filter]:
    """Return the enabled filters in order; those of the output layer come last."""
    return [*network.hidden(), *network.filters(len(network.widths))]


def weights(network: MaskedNetwork, filters: Sequence[Filter]) -> dict[Filter, np.ndarray]:
    """Return a copy of each filter's kernel and bias as one row, float32 `(n,)`."""
    rows = {layer: network.filter_weights(layer) for layer, _ in filters}
    return {filter: rows[filter.layer][filter.index].copy() for filter in filters}


def distance(new: np.ndarray, old: np.ndarray) -> float:
    length = float(np.linalg.norm(old))
    return float(np.linalg.norm(new - old)) / (length or 1.0)


def successor(
    filter: Filter, new: Mapping[Filter, np.ndarray], old: Mapping[Filter, np.ndarray]
) -> Successor | None:
    """Return the successor of a filter in its layer; filters of other layers read other inputs."""
    others = [other for other in old if other.layer == filter.layer and other != filter]
    if not others:
        return None
    after = [similarity(old[filter], new[other]) for other in others]
    best = int(np.argmax(after))
    return Successor(others[best], after[best], similarity(old[filter], old[others[best]]))


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Return the absolute cosine similarity of two rows."""
    return abs(float(cosine_similarity(np.stack([one, other]))[0, 1]))


def score(state: State) -> float:
    return float(quotient(state.sums.sum(axis=0)))


def paired_difference(one: np.ndarray, other: np.ndarray) -> ScoreChange:
    """Return the change from the loss `other` to the loss `one`, both sums per photograph, `(N, 2)`.

    The interval says how far the change depends on the choice of photographs; how far it depends on the
    seed, only other seeds can show.
    """
    return ScoreChange(relative_loss(one, other), *change_bounds(one, other, (1 + CONFIDENCE) / 2))
