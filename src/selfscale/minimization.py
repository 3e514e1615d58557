"""The minimization loop (thesis 2.3.2): select, alter, train shortly, evaluate, keep or step back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from selfscale import redundancy
from selfscale.acceptance import RULES, Judge, reason, reference_of, threshold
from selfscale.alterations import ALTERATIONS
from selfscale.config import Minimization
from selfscale.errors import UserError
from selfscale.evaluation import Evaluation
from selfscale.layers import removable_layers, without_layers
from selfscale.patience import hopeless_scores
from selfscale.probe import Probe
from selfscale.proposals import next_trial
from selfscale.records import (
    REMOVE_LAYER,
    TRAIN,
    DecisionRecord,
    SessionRecord,
    last_accepted,
    layers_of,
)
from selfscale.snapshot import Snapshot
from selfscale.training import Plan, Progress, Trainer, joined
from selfscale.trial import Round, Select, Trial


class Decision(NamedTuple):
    """`trained` is the network as the trial's session left it, kept or not; `trainer` has the one kept."""

    record: DecisionRecord
    trained: Snapshot
    trainer: Trainer


def minimize(
    trainer: Trainer,
    select: Select,
    settings: Minimization,
    *,
    seed: int,
    initial: Evaluation,
    curves: Sequence[Sequence[float]] = (),
    history: Sequence[DecisionRecord] = (),
    progress: Progress | None = None,
) -> Iterator[Decision]:
    """Remove filters and layers as long as the task is still done; yields once per decision.

    `initial` is the initial network's evaluation; `curves` are the scores in the cycles that trained
    it, which show how far a score comes down. A trial is kept when the rule
    `settings.acceptance.rule` finds its validation score at most `tolerance` (relative) above that
    of the reference: the initial network, the previous one that was kept, or the best one. What
    failed is not tried again before something else was changed. When every candidate has failed, or
    a limit is reached, a last session trains what is left, and the generator ends.

    A removed layer makes another network, and so another trainer: each decision comes with the
    trainer of the network that was kept. To go on with an interrupted minimization, pass the trainer
    restored to that state and the records so far as `history`: every decision draws its random
    numbers from (seed, decision), so it continues as if it had never stopped.

    Raises:
        UserError: nothing may be removed from the network, or the strategy's answer is no scores.
    """
    records = list(history)
    layers = removable_layers(trainer.network) if settings.layers.tries else []
    if not (records or layers or trainer.network.removable()):
        raise UserError(
            f"network '{trainer.network.model.name}': nothing may be removed from it: it has no hidden "
            "layer of two filters or more, and no second one that may go; start from a larger network"
        )
    probe = Probe(trainer.network, trainer.train, trainer.loss)
    while not (records and records[-1].alteration == TRAIN):
        round = Round(trainer.network, probe, select, settings, seed, tuple(records))
        trial = next_trial(round)
        if trial.alteration == TRAIN and not trial.steps:
            return
        decision = decide(trainer, round, trial, initial, curves, progress)
        if decision.trainer is not trainer:
            trainer = decision.trainer
            probe = Probe(trainer.network, trainer.train, trainer.loss)
        records.append(decision.record)
        yield decision


def decide(
    trainer: Trainer,
    round: Round,
    trial: Trial,
    initial: Evaluation,
    curves: Sequence[Sequence[float]],
    progress: Progress | None,
) -> Decision:
    """Alter, reset Adam, train, evaluate; keep the result or step back to the snapshot."""
    settings, records = round.settings, round.records
    judge = judge_of(trial, settings, initial.sums[trainer.loss], records)
    before = Snapshot.take(trainer)
    tried = alter(trainer, trial, round.rng(2))
    tried.reset()
    score_before = tried.evaluate_loss()
    stops: Mapping[int, float] = {}
    # While filters are frozen, a score does not come down as far as it will.
    if settings.stop_hopeless and trial.removes and trial.steps and not tried.network.frozen():
        known = [*curves, *([score for _, score in record.session.scores] for record in records)]
        stops = hopeless_scores(known, Plan(trial.steps, trainer.settings.evaluations), judge.limit)
    session, evaluation = train_trial(tried, round, trial, judge, stops, progress)
    verdict = judge(evaluation.sums[trainer.loss], session.ended)
    trained = Snapshot.take(tried)
    if not verdict.accepted:
        before.restore(trainer)
    kept = tried if verdict.accepted else trainer
    parameters, macs = kept.network.size()
    record = DecisionRecord(
        number=round.number,
        alteration=trial.alteration,
        filters=trial.filters,
        selection_score=trial.selection_score,
        started_from=last_accepted(records),
        limit=judge.limit,
        score_before_training=score_before,
        score=evaluation.score(trainer.loss),
        relative_loss=verdict.relative_loss,
        bound=verdict.bound,
        metrics=evaluation.scores(),
        image_sums=tuple((float(a), float(b)) for a, b in evaluation.sums[trainer.loss]),
        accepted=verdict.accepted,
        reason=reason(session.ended, verdict, judge.tolerance),
        filters_kept=kept.network.filters_kept,
        parameters=parameters,
        macs_per_pixel=macs,
        session=session,
    )
    return Decision(record, trained, kept)


def alter(trainer: Trainer, trial: Trial, rng: np.random.Generator) -> Trainer:
    """Do what the trial is about; the trainer of the network to be trained, a new one without a layer."""
    if trial.alteration == REMOVE_LAYER:
        train, layers = trainer.train, layers_of(trial.filters)
        return trainer.of(
            without_layers(trainer.network, layers, train.images, train.targets, trial.attempt, rng)
        )
    if trial.spare:
        redundancy.merge(trainer.network, trial.spare)
    elif trial.filters:
        ALTERATIONS[trial.alteration](trainer.network, trial.filters, rng)
    return trainer


def train_trial(
    trainer: Trainer,
    round: Round,
    trial: Trial,
    judge: Judge,
    stops: Mapping[int, float],
    progress: Progress | None,
) -> tuple[SessionRecord, Evaluation]:
    """The trial's session, of several cycles where filters are frozen at first or it comes close.

    One that comes close (`settings.near`) trains on for another cycle, as often as
    `settings.max_cycles` and the limit on steps allow: a session that is cut off while it still gains
    proves nothing. The session after the removal of a layer is long as it is: it gets no other
    cycle, and ends as soon as the trial can be kept.
    """
    if not trial.steps:
        evaluation = trainer.evaluator(trainer.validation)
        return SessionRecord(0, (), (), "dead" if evaluation.dead else "completed", 0.0), evaluation
    of_layer = trial.alteration == REMOVE_LAYER
    plan = Plan(trial.steps, trainer.settings.evaluations, trial.learning_rate)
    cycles = round.settings.max_cycles if trial.removes and not of_layer else 1
    sessions: list[SessionRecord] = []

    def accepted(evaluation: Evaluation) -> bool:
        return judge(evaluation.sums[trainer.loss], "completed").accepted

    while True:
        session, evaluation = trainer.session(
            plan,
            round.rng(1, len(sessions)),
            progress,
            hopeless={} if sessions else stops,
            sufficient=accepted if of_layer else None,
        )
        sessions.append(session)
        frozen = trainer.network.frozen()
        trainer.network.unfreeze(*frozen)
        verdict = judge(evaluation.sums[trainer.loss], session.ended)
        near = not verdict.accepted and verdict.relative_loss <= round.settings.near
        longer = round.allows(trial.steps * (len(sessions) + 1))
        another = near and longer and len(sessions) < cycles
        if session.ended != "completed" or not (frozen or another):
            return joined(sessions), evaluation


def judge_of(
    trial: Trial, settings: Minimization, initial: np.ndarray, records: Sequence[DecisionRecord]
) -> Judge:
    """The settings' judge; a trial that removes nothing has to be no worse than what it started from."""
    chosen = settings.acceptance
    if trial.removes:
        reference = reference_of(chosen.reference, initial, records)
        return Judge(reference, settings.tolerance, RULES[chosen.rule], chosen.confidence)
    return Judge(reference_of("previous", initial, records), 0.0, threshold, chosen.confidence)
