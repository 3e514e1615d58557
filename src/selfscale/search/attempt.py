"""One trial: alter the network, train it, evaluate it, and judge the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from selfscale.config import Minimization
from selfscale.nn import redundancy
from selfscale.nn.alterations import ALTERATIONS
from selfscale.nn.checkpoint import Checkpoint
from selfscale.nn.input_pipeline import spread
from selfscale.nn.layer_removal import FITTED_IMAGES, without_layer
from selfscale.nn.metrics import Evaluation
from selfscale.nn.trainer import Plan, Trainer, joined
from selfscale.nn.widening import grown
from selfscale.progress import Progress
from selfscale.records import REMOVE_LAYER, DecisionRecord, GrowthStep, SessionRecord, layers_of
from selfscale.search.acceptance import RULES, Judge, Verdict, reference_of, threshold
from selfscale.search.early_stopping import hopeless_scores
from selfscale.search.trial import Round, Trial


class Attempt(NamedTuple):
    """Outcome of a trial; `trainer` is as its session left it, and `trained` its state then."""

    trial: Trial
    judge: Judge
    score_before_training: float
    session: SessionRecord
    evaluation: Evaluation
    verdict: Verdict
    trained: Checkpoint
    trainer: Trainer

    @property
    def score(self) -> float:
        return self.evaluation.score(self.trainer.loss)


def attempt(
    trainer: Trainer,
    round: Round,
    trial: Trial,
    initial: Evaluation,
    curves: Sequence[Sequence[float]],
    progress: Progress,
) -> Attempt:
    """Alter, reset the optimizer, train, evaluate and judge.

    Args:
        trainer: Trainer of the network accepted last.
        round: State that the trial was chosen from.
        trial: What to try.
        initial: Evaluation of the initial network.
        curves: Losses in the cycles that trained it.
        progress: Listener.
    """
    settings, records = round.settings, round.records
    most = looks(trial, settings, trainer.settings.evaluations)
    judge = judge_of(trial, settings, initial.sums[trainer.loss], records, most)
    progress = progress.of(
        decision=round.number,
        tried=str(trial),
        limit=judge.limit,
        filters=trainer.network.filters_kept,
        done=sum(record.steps for record in records),
    )
    tried = alter(trainer, trial, round.rng(2))
    tried.reset()
    score_before = tried.evaluate_loss()
    stops: Mapping[int, float] = {}
    # While filters are frozen, the loss does not fall as far as it will.
    stoppable = trial.removes or trial.grows
    if settings.stop_hopeless and stoppable and trial.steps and not tried.network.frozen():
        known = [*curves, *([score for _, score in record.session.scores] for record in records)]
        stops = hopeless_scores(known, Plan(trial.steps, trainer.settings.evaluations), judge.limit)
    session, evaluation = train_trial(tried, round, trial, judge, stops, progress)
    verdict = judge(evaluation.sums[trainer.loss], session.ended)
    return Attempt(trial, judge, score_before, session, evaluation, verdict, Checkpoint.take(tried), tried)


def alter(trainer: Trainer, trial: Trial, rng: np.random.Generator) -> Trainer:
    """Alter the network; return its trainer, or that of a new network if the trial `rebuilds`."""
    train, network = trainer.train, trainer.network
    if trial.alteration == REMOVE_LAYER:
        for layer in layers_of(trial.filters):
            network = without_layer(network, layer, train, trial.attempt, rng)
        return trainer.of(network)
    if trial.grows:
        pictures = spread(train, FITTED_IMAGES).images / np.float32(255)
        step = GrowthStep(trial.alteration, trial.filters)
        return trainer.of(grown(network, step, pictures, rng))
    if trial.spare:
        redundancy.merge(network, trial.spare)
    elif trial.filters:
        ALTERATIONS[trial.alteration](network, trial.filters, rng)
    return trainer


def train_trial(
    trainer: Trainer,
    round: Round,
    trial: Trial,
    judge: Judge,
    stops: Mapping[int, float],
    progress: Progress,
) -> tuple[SessionRecord, Evaluation]:
    """Train an altered network, in several cycles if filters are frozen at first, or if it comes close.

    One that comes close (`settings.near`) trains for another cycle, as often as `settings.max_cycles`
    and the limit on steps allow: a session that is cut off while it still gains proves nothing. The
    long session after the removal of a layer gets no other cycle, and ends as soon as the trial is
    accepted. `stops` are losses by step, above which the first cycle is hopeless.
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
            progress.after(len(sessions) * trial.steps),
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


def looks(trial: Trial, settings: Minimization, evaluations: int) -> int:
    """Return at how many evaluations a trial, or one of those beside it, may be accepted.

    A trial of layers ends at the first evaluation that suffices, one of filters after any of its cycles.
    """
    if trial.alteration == REMOVE_LAYER:
        return evaluations
    return settings.max_cycles * settings.speculative if trial.removes and trial.steps else 1


def judge_of(
    trial: Trial, settings: Minimization, initial: np.ndarray, records: Sequence[DecisionRecord], looks: int
) -> Judge:
    """Return the settings' judge of a removal; other trials are compared with what they started from.

    Growth has to gain at least `trial.least_gain` by the same rule. What neither grows nor shrinks must
    be no worse.
    """
    chosen = settings.acceptance
    if trial.removes:
        reference = reference_of(chosen.reference, initial, records)
        return Judge(reference, settings.tolerance, RULES[chosen.rule], chosen.confidence, looks)
    previous = reference_of("previous", initial, records)
    if trial.grows:
        return Judge(previous, -trial.least_gain, RULES[chosen.rule], chosen.confidence)
    return Judge(previous, 0.0, threshold, chosen.confidence)
