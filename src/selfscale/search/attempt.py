"""One trial: alter the network, train it, evaluate it, and judge the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from selfscale.decisions import REMOVE_LAYER, DecisionRecord, GrowthStep, SessionRecord, layers_of
from selfscale.nn import redundancy
from selfscale.nn.alterations import ALTERATIONS
from selfscale.nn.checkpoint import Checkpoint
from selfscale.nn.input_pipeline import spread
from selfscale.nn.layer_removal import FITTED_IMAGES, without_layer
from selfscale.nn.metrics import Evaluation
from selfscale.nn.refit import refit_if_better
from selfscale.nn.trainer import Plan, Trainer, joined
from selfscale.nn.widening import grown
from selfscale.progress import Progress
from selfscale.search.acceptance import RULES, Judge, Verdict, reference_of, threshold
from selfscale.search.early_stopping import hopeless_scores
from selfscale.search.trial import Round, Trial
from selfscale.search_config import Minimization

DRIFT = 0.5  # of the tolerance: a network that has lost more is trained, though it is within


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
    tried = alter(trainer, round, trial)
    tried.reset()
    untrained = tried.evaluator(tried.validation, (tried.loss,))
    stops: Mapping[int, float] = {}
    # While filters are frozen, the loss does not fall as far as it will.
    stoppable = trial.removes or trial.grows
    if settings.stop_hopeless and stoppable and trial.steps and not tried.network.frozen():
        known = [*curves, *([score for _, score in record.session.scores] for record in records)]
        stops = hopeless_scores(known, Plan(trial.steps, trainer.settings.evaluations), judge.limit)
    session, evaluation = train_if_needed(tried, round, trial, judge, untrained, stops, progress)
    verdict = judge(evaluation.sums[trainer.loss], session.ended)
    score_before = untrained.score(trainer.loss)
    return Attempt(trial, judge, score_before, session, evaluation, verdict, Checkpoint.take(tried), tried)


def alter(trainer: Trainer, round: Round, trial: Trial) -> Trainer:
    """Alter the network; return its trainer, or that of a new network if the trial `rebuilds`."""
    train, network, rng = trainer.train, trainer.network, round.rng(2)
    if trial.alteration == REMOVE_LAYER:
        for layer in layers_of(trial.filters):
            network = without_layer(network, layer, train, trial.attempt, rng)
        return trainer.of(network)
    if trial.grows:
        step = GrowthStep(trial.alteration, trial.filters)
        return trainer.of(grown(network, step, spread(train, FITTED_IMAGES).images, rng))
    if trial.spare:
        redundancy.merge(network, trial.spare)
    elif trial.filters:
        before = network.state()
        ALTERATIONS[trial.alteration](network, trial.filters, rng)
        if trial.removes and round.settings.removal.refit:
            images = round.probe.images[::2]  # which are spread over all photographs
            refit_if_better(network, before, images, round.rng(6), round.probe.loss_of)
    return trainer


def train_if_needed(
    trainer: Trainer,
    round: Round,
    trial: Trial,
    judge: Judge,
    untrained: Evaluation,
    stops: Mapping[int, float],
    progress: Progress,
) -> tuple[SessionRecord, Evaluation]:
    """Train an altered network, unless it is within the tolerance already.

    One that has drifted through half of the tolerance is trained all the same, and keeps the weights
    that it had if those were better.
    """
    verdict = judge(untrained.sums[trainer.loss], "dead" if untrained.dead else "completed")
    within = trial.removes and round.settings.removal.sessions == "needed" and verdict.accepted
    if not trial.steps or (within and verdict.relative_loss <= DRIFT * judge.tolerance):
        trainer.network.unfreeze(*trainer.network.frozen())
        evaluation = trainer.evaluator(trainer.validation)
        return SessionRecord(0, (), (), "dead" if evaluation.dead else "completed", 0.0), evaluation
    before = Checkpoint.take(trainer)
    session, evaluation = train_trial(trainer, round, trial, judge, stops, progress)
    after = judge(evaluation.sums[trainer.loss], session.ended)
    if within and not (after.accepted and after.relative_loss < verdict.relative_loss):
        before.restore(trainer)
        trainer.network.unfreeze(*trainer.network.frozen())
        session, evaluation = replace(session, ended="completed"), trainer.evaluator(trainer.validation)
    return session, evaluation


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

    A trial of layers ends at the first evaluation that suffices, one of filters after any of its cycles,
    and either before its session.
    """
    if not (trial.removes and trial.steps):
        return 1
    untrained = settings.removal.sessions == "needed"
    if trial.alteration == REMOVE_LAYER:
        return evaluations + untrained
    return (settings.max_cycles + untrained) * settings.speculative


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
        rule, target = RULES[chosen.rule], settings.target
        return Judge(reference, settings.tolerance, rule, chosen.confidence, looks, target)
    previous = reference_of("previous", initial, records)
    if trial.grows:
        return Judge(previous, -trial.least_gain, RULES[chosen.rule], chosen.confidence)
    return Judge(previous, 0.0, threshold, chosen.confidence)
