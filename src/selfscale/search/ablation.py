"""Worth of a filter (thesis 2.3.1): what is lost without it, who makes up for it, can it relearn its role.

Three tests of each hidden filter, and one baseline session that alters nothing, since further
training alone changes a score, too. Each starts from the same snapshot, with a fresh Adam, and
trains on the same crops in the same order: they differ in nothing but what was altered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from selfscale.nn.alterations import Alteration, disable, disable_and_freeze, reinitialize
from selfscale.nn.checkpoint import Checkpoint
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.trainer import Plan, Trainer
from selfscale.progress import SILENT, Progress
from selfscale.records import Filter, SessionRecord
from selfscale.search.acceptance import RESAMPLES, ratio, relative_loss
from selfscale.search.importance import cosine_similarity

CONFIDENCE = 0.95
BASELINE = "baseline"
# Of the random numbers, in the place of a decision's number: one that no minimization reaches.
STREAM = 2**31


@dataclass(frozen=True)
class ScoreChange:
    """Of two scores, relative: one / other - 1 (below zero: better), with a 95 % interval (two-sided)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Movement:
    """Euclidean distance of a filter's weights from what they were, relative to their length then.

    Of a filter that had no length, the distance itself.
    """

    filter: Filter
    distance: float


@dataclass(frozen=True)
class Successor:
    """The other filter of the layer that is most like the tested one was, by absolute cosine similarity.

    `before` is the same filter's similarity before the session: only a gain is a role taken over.
    """

    filter: Filter
    similarity: float
    before: float


@dataclass(frozen=True)
class AblationRecord:
    """One test of one filter; `filter` is None for the baseline session.

    Scores are the task's loss on the validation images, lower is better; `reference` is that of the
    untouched snapshot. `difference` compares the score after the session with it,
    `against_baseline` with that of the baseline session. `movements` has every enabled filter, the
    tested one and the output layer's (numbered behind the last hidden layer) too. `successor` is
    None where the layer has no other filter; `relearned` is the absolute cosine similarity of a
    reinitialized filter's new weights with its old ones, None in the other tests.
    """

    test: str
    filter: Filter | None
    reference: float
    score_before_training: float
    score: float
    difference: ScoreChange
    against_baseline: ScoreChange | None
    movements: tuple[Movement, ...]
    successor: Successor | None
    relearned: float | None
    session: SessionRecord


def reinitialize_alone(network: MaskedNetwork, filters: Sequence[Filter], rng: np.random.Generator) -> None:
    """Draw the filters anew and freeze all others, the output layer's too: they relearn alone."""
    reinitialize(network, filters, rng)
    network.freeze(*(other for other in enabled(network) if other not in filters))


# In the second test the other filters of the layer are frozen, so that only other layers can make up
# for the one that is off. That one gets no gradient in the first test, either: to freeze it alone
# would repeat that test exactly.
TESTS: Mapping[str, Alteration] = {
    "disabled": disable,
    "disabled_and_frozen": disable_and_freeze,
    "reinitialized": reinitialize_alone,
}
RELEARNS = "reinitialized"


class State(NamedTuple):
    """A network at one moment: its filters' weights, float32 (n,), and the score's sums per image, (N, 2)."""

    weights: Mapping[Filter, np.ndarray]
    sums: np.ndarray


def ablate(
    trainer: Trainer, steps: int, *, seed: int, progress: Progress = SILENT
) -> Iterator[AblationRecord]:
    """The baseline session, then every possible test of every enabled hidden filter, `steps` steps each.

    At each yield the trainer is exactly as it was given. The same seed gives the same records, apart
    from the seconds.
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
    """The tests of each hidden filter: the only one of its layer can be reinitialized, not disabled."""
    return [
        (test, filter)
        for filter in hidden(network)
        for test in TESTS
        if network.active[filter.layer].sum() > 1 or test == RELEARNS
    ]


def altered(
    trainer: Trainer, test: str, filter: Filter | None, plan: Plan, seed: int, progress: Progress
) -> tuple[float, SessionRecord, State]:
    """Alter, train, undo: the score before the session, the session, and the state that it led to."""
    network, snapshot = trainer.network, Checkpoint.take(trainer)
    filters = enabled(network)
    try:
        if filter:
            TESTS[test](network, (filter,), np.random.default_rng((seed, STREAM, 1, *filter)))
        trainer.reset()
        score_before = trainer.evaluate_loss()
        session, evaluation = trainer.session(plan, np.random.default_rng((seed, STREAM, 0)), progress)
        return score_before, session, State(weights(network, filters), evaluation.sums[trainer.loss])
    finally:
        snapshot.restore(trainer)


def enabled(network: MaskedNetwork) -> list[Filter]:
    """The filters that are on, in order; those of the output layer come last."""
    layers = [*network.active, np.ones(network.blocks[-1].filters, bool)]
    return [Filter(layer, int(i)) for layer, active in enumerate(layers) for i in np.flatnonzero(active)]


def hidden(network: MaskedNetwork) -> list[Filter]:
    return [filter for filter in enabled(network) if filter.layer < len(network.active)]


def weights(network: MaskedNetwork, filters: Sequence[Filter]) -> dict[Filter, np.ndarray]:
    """Each filter's kernel and bias as one row, float32 (n,); copies."""
    rows = {layer: network.filter_weights(layer) for layer, _ in filters}
    return {filter: rows[filter.layer][filter.index].copy() for filter in filters}


def distance(new: np.ndarray, old: np.ndarray) -> float:
    length = float(np.linalg.norm(old))
    return float(np.linalg.norm(new - old)) / (length or 1.0)


def successor(
    filter: Filter, new: Mapping[Filter, np.ndarray], old: Mapping[Filter, np.ndarray]
) -> Successor | None:
    """Looked for in the same layer only: the filters of others look at other inputs."""
    others = [other for other in old if other.layer == filter.layer and other != filter]
    if not others:
        return None
    after = [similarity(old[filter], new[other]) for other in others]
    best = int(np.argmax(after))
    return Successor(others[best], after[best], similarity(old[filter], old[others[best]]))


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """The absolute cosine similarity of two rows, 0..1."""
    return abs(float(cosine_similarity(np.stack([one, other]))[0, 1]))


def score(state: State) -> float:
    return float(ratio(state.sums.sum(axis=0)))


def paired_difference(one: np.ndarray, other: np.ndarray) -> ScoreChange:
    """The difference of two scores, both float64 (N, 2): sums per image, of the same images.

    A percentile bootstrap over the images, paired as in `acceptance.non_inferiority` (Efron and
    Tibshirani 1993, chapter 13). The interval says how far the difference depends on the choice of
    the images; how far it depends on the seed, only other seeds can show.
    """
    count = len(other)
    rng = np.random.default_rng(0)
    chosen = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    resampled = ratio(chosen @ one) / ratio(chosen @ other) - 1.0
    tail = (1 - CONFIDENCE) / 2
    low = float(np.quantile(resampled, tail, method="lower"))
    high = float(np.quantile(resampled, 1 - tail, method="higher"))
    return ScoreChange(relative_loss(one, other), low, high)
