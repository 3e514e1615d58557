"""The minimization loop (thesis 2.3.2): select, alter, train shortly, evaluate, accept or revert.

The network first grows as long as that pays, if it is to (see `growth_trials`); what is said of the
initial network below holds then for the grown one. A trial is accepted if the rule
`settings.acceptance.rule` finds its validation loss at most `tolerance` (relative) above that of the
reference. What failed is not tried again before another decision was accepted. When every candidate has
failed, or a limit is reached, a last session trains what is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import keras

from selfscale.decisions import TRAIN, DecisionRecord, last_accepted
from selfscale.errors import UserError
from selfscale.nn.checkpoint import Checkpoint
from selfscale.nn.compaction import compact, compacted, pays
from selfscale.nn.devices import forget_kernels
from selfscale.nn.layer_removal import removable_layers, with_layers
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.metrics import Evaluation
from selfscale.nn.probe import Probe
from selfscale.nn.ratios import quotient
from selfscale.nn.trainer import Trainer
from selfscale.progress import SILENT, Progress
from selfscale.search.acceptance import reaches_target, reference_of
from selfscale.search.attempt import Attempt, attempt
from selfscale.search.growth_trials import Growing, growth_trial
from selfscale.search.importance import Select
from selfscale.search.proposals import next_trials
from selfscale.search.trial import Round, Trial
from selfscale.search_config import Minimization

# Filters of each hidden layer, parameters and multiply-accumulates per pixel.
Left = tuple[tuple[int, ...], int, float]


class Decision(NamedTuple):
    """A decision, the network as its session left it, and the trainer of the network accepted last.

    To go on from `trainer` is possible only if `settled`: else other decisions of the round follow.
    `rejected` is the compact network of a trial that was reverted, if no known one is as small and as good.
    """

    record: DecisionRecord
    trained: Checkpoint
    trainer: Trainer
    settled: bool
    rejected: keras.Model | None = None


def minimize(
    trainer: Trainer,
    select: Select,
    settings: Minimization,
    *,
    seed: int,
    initial: Evaluation,
    curves: Sequence[Sequence[float]] = (),
    history: Sequence[DecisionRecord] = (),
    growing: Growing | None = None,
    progress: Progress = SILENT,
) -> Iterator[Decision]:
    """Remove filters and layers as long as the task is still done; yield each decision.

    Args:
        trainer: Trainer of the network: the initial one, or that accepted last in `history`. Each
            decision draws its random numbers from (seed, decision), so an interrupted minimization
            continues as if it had not stopped.
        select: Strategy.
        settings: Section `minimization`.
        seed: Seed of the run.
        initial: Evaluation of the initial network.
        curves: Validation losses in the cycles that trained it.
        history: Records so far.
        growing: How the network grows first.
        progress: Listener.

    Raises:
        UserError: Nothing may be removed from the network, or the strategy returns no scores.
    """
    records = list(history)
    if not (records or growing):
        check_removable(trainer.network, settings)
    probe, spares = Probe(trainer.network, trainer.train, trainer.loss), list[Trainer]()
    while not (records and records[-1].alteration == TRAIN):
        round = Round(trainer.network, probe, select, settings, seed, tuple(records))
        trials = next_growth(growing, round, trainer, initial) or next_trials(round)
        if trials[0].alteration == TRAIN and not trials[0].steps:
            return
        while len(spares) < len(trials) - 1:
            spares.append(trainer.of(with_layers(trainer.network, trainer.network.layers)))
        decisions = decide(trainer, spares, round, trials, initial, curves, progress)
        accepted = decisions[-1].trainer
        if accepted is not trainer or trials[0].rebuilds:
            forget_kernels()  # of the network that was left, or that was tried in vain
        if accepted is not trainer:
            trainer, spares = accepted, []
            probe = Probe(trainer.network, trainer.train, trainer.loss)
        records += [decision.record for decision in decisions]
        yield from decisions


def check_removable(network: MaskedNetwork, settings: Minimization) -> None:
    """Raise UserError if nothing may be removed from the network."""
    layers = removable_layers(network) if settings.layers.tries else []
    if not (layers or network.removable()):
        raise UserError(
            f"network '{network.model.name}': nothing may be removed from it: it has no hidden "
            "layer of two filters or more, and no second one that may go; start from a larger network"
        )


def most_steps(settings: Minimization, growing: Growing | None = None) -> int | None:
    """Return how many training steps a minimization takes at most; None if no limit says so.

    What a growth strategy trains to choose comes on top: it is known only afterwards.
    """
    grown = growing.limits.max_steps if growing else 0
    if growing and not growing.then_shrinks:
        return grown + settings.last_session_steps
    limits, freezes = settings.limits, "disable_and_freeze" in settings.removal.alterations
    longest = settings.removal.steps * max(settings.max_cycles, 2 if freezes else 1)
    if settings.layers.tries:
        longest = max(longest, settings.layers.steps)
    found = []
    if limits.steps is not None:  # each of the trials at once looks at its own steps only
        found.append(limits.steps + (settings.speculative - 1) * longest)
    if limits.decisions is not None:
        found.append(limits.decisions * longest)
    return grown + min(found) + settings.last_session_steps if found else None


def next_growth(growing: Growing | None, round: Round, trainer: Trainer, initial: Evaluation) -> list[Trial]:
    """Return the next trial of growth; once it is over none, or the last session if no removals follow."""
    if not growing:
        return []
    now = reference_of("previous", initial.sums[trainer.loss], round.records)
    reached = reaches_target(round.settings, now)
    trial = None if reached else growth_trial(growing, round, trainer, float(quotient(now.sum(axis=0))))
    if trial:
        return [trial]
    # Nothing can be removed from a network that is too weak for the target.
    shrinks = growing.then_shrinks and (reached is not False or round.removals)
    return [] if shrinks else [round.last_session()]


def decide(
    trainer: Trainer,
    spares: Sequence[Trainer],
    round: Round,
    trials: Sequence[Trial],
    initial: Evaluation,
    curves: Sequence[Sequence[float]],
    progress: Progress,
) -> list[Decision]:
    """Attempt all trials of a round from the same state; accept the best acceptable one, or revert.

    `spares` are trainers of the same network, one for each trial but the first, which run in threads of
    their own. An accepted decision comes last; the network is compacted once that pays.
    """
    before, was = Checkpoint.take(trainer), left(trainer.network)

    def start(candidate: int) -> Attempt:
        own = (trainer, *spares)[candidate]
        if candidate:
            before.restore(own)
        reported = SILENT if candidate else progress
        return attempt(own, round.of(candidate), trials[candidate], initial, curves, reported)

    if len(trials) == 1:
        attempts = [start(0)]
    else:
        with ThreadPoolExecutor(len(trials)) as pool:
            attempts = list(pool.map(start, range(len(trials))))
    best = min((a for a in attempts if a.verdict.accepted), key=lambda a: a.score, default=None)
    rejected = {id(a): compact_rejected(a, round.records) for a in attempts if a is not best}
    now, following = was, trainer
    if best is None:
        before.restore(trainer)
    else:
        if trials[0].rebuilds:
            following = best.trainer
        else:
            best.trained.restore(trainer)
        now = left(following.network)
        if pays(following, round.settings.removal.steps):
            following = following.of(compacted(following.network))
    ordered = [*(each for each in attempts if each is not best), *([best] if best else [])]
    records = [
        record_of(each, round, number, each is best, now if each is best else was)
        for number, each in enumerate(ordered, round.number)
    ]
    return [
        Decision(record, each.trained, following, each is ordered[-1], rejected.get(id(each)))
        for record, each in zip(records, ordered, strict=True)
    ]


def compact_rejected(found: Attempt, records: Sequence[DecisionRecord]) -> keras.Model | None:
    """Return a trial's compact network; None if it is dead, or an accepted one is as small and as good."""
    network = found.trainer.network
    macs, alive = network.size().macs_per_pixel, found.session.ended not in ("dead", "non-finite")
    beaten = any(r.accepted and r.macs_per_pixel <= macs and r.score <= found.score for r in records)
    return compact(network) if found.trial.removes and alive and not beaten else None


def left(network: MaskedNetwork) -> Left:
    return network.filters_kept, *network.size()


def record_of(found: Attempt, round: Round, number: int, accepted: bool, left: Left) -> DecisionRecord:
    """Return the record of an attempt; `left` is the size of the network after the decision."""
    trial, verdict = found.trial, found.verdict
    why = found.judge.reason(found.session.ended, verdict)
    if verdict.accepted and not accepted:
        why = f"{why}, but another trial of the round was better"
    filters_kept, parameters, macs = left
    return DecisionRecord(
        number=number,
        alteration=trial.alteration,
        filters=trial.filters,
        selection_score=trial.selection_score,
        started_from=last_accepted(round.records),
        limit=found.judge.limit,
        score_before_training=found.score_before_training,
        score=found.score,
        relative_loss=verdict.relative_loss,
        bound=verdict.bound,
        metrics=found.evaluation.scores(),
        photograph_sums=tuple((float(a), float(b)) for a, b in found.evaluation.sums[found.trainer.loss]),
        accepted=accepted,
        reason=why,
        filters_kept=filters_kept,
        parameters=parameters,
        macs_per_pixel=macs,
        session=found.session,
        selection_steps=trial.selection_steps,
    )
