"""The minimization loop (thesis 2.3.2): select, alter, train shortly, evaluate, keep or step back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selfscale.config import Minimization
from selfscale.evaluation import Evaluation
from selfscale.network import size
from selfscale.patience import hopeless_scores
from selfscale.records import DecisionRecord, Filter
from selfscale.selection import Subject
from selfscale.snapshot import Snapshot
from selfscale.training import Plan, Progress, Trainer

# Scores every candidate of a subject: a strategy with its arguments bound.
Select = Callable[[Subject], np.ndarray]


@dataclass(frozen=True)
class Trial:
    """What the next decision is about; no filters: the last session, which alters nothing."""

    filters: tuple[Filter, ...]
    selection_score: float
    steps: int


def minimize(
    trainer: Trainer,
    select: Select,
    settings: Minimization,
    *,
    seed: int,
    reference: Evaluation,
    history: Sequence[DecisionRecord] = (),
    progress: Progress | None = None,
) -> Iterator[tuple[DecisionRecord, Snapshot]]:
    """Remove filters one by one as long as the task is still done; yields once per decision.

    Yielded are the decision's record and a snapshot of the network as its session left it, kept or
    not.

    `reference` is the initial network's evaluation; a trial is kept when its validation score is
    at most `tolerance` (relative) above it. A filter that failed is not tried again before another
    one was removed. When every candidate has failed, or a limit is reached, a last session trains
    what is left, and the generator ends.

    At each yield the trainer's network is the one that was kept. To go on with an
    interrupted minimization, restore the network to that state and pass the records so far as
    `history`: every decision draws its random numbers from (seed, decision), so it continues as if
    it had never stopped.
    """
    records = list(history)
    limit = reference.score(trainer.loss) * (1.0 + settings.tolerance)
    current = next((r.score for r in reversed(records) if r.accepted), reference.score(trainer.loss))
    while not (records and not records[-1].filters):
        number = len(records) + 1
        trial = next_trial(trainer, select, settings, seed, records)
        if not trial.steps:
            return
        bound = limit if trial.filters else current
        stops: Mapping[int, float] = {}
        if settings.stop_hopeless and trial.filters:
            stops = hopeless_scores([r.session for r in records], trial.steps, bound)
        record, trained = decide(trainer, trial, number, seed, bound, stops, reference, records, progress)
        if record.accepted:
            current = record.score
        records.append(record)
        yield record, trained


def next_trial(
    trainer: Trainer, select: Select, settings: Minimization, seed: int, records: Sequence[DecisionRecord]
) -> Trial:
    """The best candidate that has not failed since the last removal, or the last session."""
    network = trainer.network
    last_accepted = max((r.number for r in records if r.accepted), default=0)
    failed = {filter for r in records[last_accepted:] for filter in r.filters}
    candidates = network.removable()
    steps = sum(r.session.steps for r in records)
    finished = (
        all(candidate in failed for candidate in candidates)
        or (settings.max_decisions is not None and len(records) >= settings.max_decisions)
        or (settings.max_steps is not None and steps + settings.session_steps > settings.max_steps)
    )
    if finished:
        return Trial((), 0.0, settings.last_session_steps)
    rng = np.random.default_rng((seed, len(records) + 1, 0))
    last = records[-1].filters[0] if records else None
    scores = select(Subject(candidates, network.active, network.filter_weights, last, rng))
    order = np.argsort(-scores, kind="stable")
    best = next(i for i in order.tolist() if candidates[i] not in failed)
    return Trial((candidates[best],), float(scores[best]), settings.session_steps)


def decide(
    trainer: Trainer,
    trial: Trial,
    number: int,
    seed: int,
    bound: float,
    stops: Mapping[int, float],
    reference: Evaluation,
    records: Sequence[DecisionRecord],
    progress: Progress | None,
) -> tuple[DecisionRecord, Snapshot]:
    """Alter, reset Adam, train, evaluate; keep the result or step back to the snapshot."""
    network, loss = trainer.network, trainer.loss
    before = Snapshot.take(trainer)
    if trial.filters:
        network.disable(*trial.filters)
    trainer.reset()
    score_before = trainer.evaluate_loss()
    plan = Plan(trial.steps, trainer.settings.evaluations)
    rng = np.random.default_rng((seed, number, 1))
    session, evaluation = trainer.session(plan, rng, progress, stops)
    score = evaluation.score(loss)
    accepted, reason = judge(session.ended, score, bound)
    trained = Snapshot.take(trainer)
    if not accepted:
        before.restore(trainer)
    parameters, macs = size(network.model, network.filters_kept)
    record = DecisionRecord(
        number=number,
        alteration="disable" if trial.filters else "train",
        filters=trial.filters,
        selection_score=trial.selection_score,
        started_from=max((r.number for r in records if r.accepted), default=0),
        reference=reference.score(loss),
        limit=bound,
        score_before_training=score_before,
        score=score,
        metrics=evaluation.scores(),
        accepted=accepted,
        reason=reason,
        filters_kept=network.filters_kept,
        parameters=parameters,
        macs_per_pixel=macs,
        session=session,
    )
    return record, trained


def judge(ended: str, score: float, limit: float) -> tuple[bool, str]:
    """Whether a trial is kept, and why: a threshold on the validation score (lower is better)."""
    if ended == "non-finite":
        return False, "the loss is not a finite number"
    if ended == "dead":
        return False, "the network is dead: its output is the same everywhere"
    if ended == "hopeless":
        return False, f"score {score:.5g} came down too slowly to reach the limit {limit:.5g}"
    if not score <= limit:
        return False, f"score {score:.5g} is above the limit {limit:.5g}"
    return True, f"score {score:.5g} is within the limit {limit:.5g}"
