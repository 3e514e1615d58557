"""The minimization loop (thesis 2.3.2): select, alter, train shortly, evaluate, keep or step back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selfscale.acceptance import RULES, Judge, reason, reference_of, threshold
from selfscale.config import Minimization
from selfscale.errors import UserError
from selfscale.evaluation import Evaluation
from selfscale.network import size
from selfscale.patience import hopeless_scores
from selfscale.probe import Probe
from selfscale.records import DecisionRecord, Filter, SessionRecord
from selfscale.selection import Subject
from selfscale.snapshot import Snapshot
from selfscale.training import Plan, Progress, Trainer, joined

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
    initial: Evaluation,
    history: Sequence[DecisionRecord] = (),
    progress: Progress | None = None,
) -> Iterator[tuple[DecisionRecord, Snapshot]]:
    """Remove filters one by one as long as the task is still done; yields once per decision.

    Yielded are the decision's record and a snapshot of the network as its session left it, kept or
    not.

    `initial` is the initial network's evaluation. A trial is kept when the rule
    `settings.acceptance.rule` finds its validation score at most `tolerance` (relative) above that
    of the reference: the initial network, the previous one that was kept, or the best one. A filter
    that failed is not tried again before another one was removed. When every candidate has failed,
    or a limit is reached, a last session trains what is left, and the generator ends.

    At each yield the trainer's network is the one that was kept. To go on with an
    interrupted minimization, restore the network to that state and pass the records so far as
    `history`: every decision draws its random numbers from (seed, decision), so it continues as if
    it had never stopped.
    """
    records = list(history)
    probe = Probe(trainer.network, trainer.train, trainer.loss)
    while not (records and not records[-1].filters):
        trial = next_trial(trainer, probe, select, settings, seed, records)
        if not trial.steps:
            return
        record, trained = decide(trainer, trial, settings, seed, records, initial, progress)
        records.append(record)
        yield record, trained


def next_trial(
    trainer: Trainer,
    probe: Probe,
    select: Select,
    settings: Minimization,
    seed: int,
    records: Sequence[DecisionRecord],
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
    subject = Subject(candidates, network.active, network.filter_weights, last, rng, probe)
    scores = np.asarray(select(subject), dtype=float)
    if scores.shape != (len(candidates),) or not np.isfinite(scores).all():
        raise UserError(
            f"the strategy must return one finite number for each of {len(candidates)} candidates, "
            f"not {np.array2string(scores, threshold=8)}".replace("\n", " ")
        )
    order = np.argsort(-scores, kind="stable")
    best = next(i for i in order.tolist() if candidates[i] not in failed)
    return Trial((candidates[best],), float(scores[best]), settings.session_steps)


def decide(
    trainer: Trainer,
    trial: Trial,
    settings: Minimization,
    seed: int,
    records: Sequence[DecisionRecord],
    initial: Evaluation,
    progress: Progress | None,
) -> tuple[DecisionRecord, Snapshot]:
    """Alter, reset Adam, train, evaluate; keep the result or step back to the snapshot.

    A trial that comes close (`settings.near`) trains on for another cycle, as often as
    `settings.max_cycles` says: a session that is cut off while it still gains proves nothing.
    """
    network, number = trainer.network, len(records) + 1
    judge = judge_of(trial, settings, initial.sums[trainer.loss], records)
    stops: Mapping[int, float] = {}
    if settings.stop_hopeless and trial.filters:
        stops = hopeless_scores([r.session for r in records], trial.steps, judge.limit)
    before = Snapshot.take(trainer)
    if trial.filters:
        network.disable(*trial.filters)
    trainer.reset()
    score_before = trainer.evaluate_loss()
    plan = Plan(trial.steps, trainer.settings.evaluations)
    sessions: list[SessionRecord] = []
    while True:
        rng = np.random.default_rng((seed, number, 1, len(sessions)))
        session, evaluation = trainer.session(plan, rng, progress, {} if sessions else stops)
        sessions.append(session)
        verdict = judge(evaluation.sums[trainer.loss], session.ended)
        another = trial.filters and not verdict.accepted and verdict.relative_loss <= settings.near
        if session.ended != "completed" or not another or len(sessions) == settings.max_cycles:
            break
    trained = Snapshot.take(trainer)
    if not verdict.accepted:
        before.restore(trainer)
    parameters, macs = size(network.model, network.filters_kept)
    record = DecisionRecord(
        number=number,
        alteration="disable" if trial.filters else "train",
        filters=trial.filters,
        selection_score=trial.selection_score,
        started_from=max((r.number for r in records if r.accepted), default=0),
        limit=judge.limit,
        score_before_training=score_before,
        score=evaluation.score(trainer.loss),
        relative_loss=verdict.relative_loss,
        bound=verdict.bound,
        metrics=evaluation.scores(),
        image_sums=tuple((float(a), float(b)) for a, b in evaluation.sums[trainer.loss]),
        accepted=verdict.accepted,
        reason=reason(session.ended, verdict, judge.tolerance),
        filters_kept=network.filters_kept,
        parameters=parameters,
        macs_per_pixel=macs,
        session=joined(sessions),
    )
    return record, trained


def judge_of(
    trial: Trial, settings: Minimization, initial: np.ndarray, records: Sequence[DecisionRecord]
) -> Judge:
    """The settings' judge; that of the last session, which alters nothing, lets it lose nothing."""
    chosen = settings.acceptance
    if trial.filters:
        reference = reference_of(chosen.reference, initial, records)
        return Judge(reference, settings.tolerance, RULES[chosen.rule], chosen.confidence)
    return Judge(reference_of("previous", initial, records), 0.0, threshold, chosen.confidence)
