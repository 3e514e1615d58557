"""The minimization loop (thesis 2.3.2): select, alter, train shortly, evaluate, keep or step back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from selfscale.config import Minimization
from selfscale.errors import UserError
from selfscale.nn.checkpoint import Checkpoint
from selfscale.nn.layer_removal import removable_layers, with_layers
from selfscale.nn.metrics import Evaluation
from selfscale.nn.probe import Probe
from selfscale.nn.shrinking import pays, shrunk
from selfscale.nn.trainer import Trainer, forget_kernels
from selfscale.progress import SILENT, Progress
from selfscale.records import TRAIN, DecisionRecord, in_words, last_accepted
from selfscale.search.acceptance import ratio, reason, reference_of
from selfscale.search.attempt import Attempt, attempt
from selfscale.search.growth_trials import Growing, growth_trial
from selfscale.search.proposals import next_trials
from selfscale.search.trial import Round, Select, Trial


class Decision(NamedTuple):
    """`trained` is the network as the trial's session left it, kept or not; `trainer` has the one kept.

    `settled` is false when further decisions of the same round follow: to go on from `trainer` is
    possible only when it is true.
    """

    record: DecisionRecord
    trained: Checkpoint
    trainer: Trainer
    settled: bool


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
    """Remove filters and layers as long as the task is still done; yields once per decision.

    With `growing` the network first grows as long as that pays (see `growth_trials`); what is said
    of the initial network below holds then for the one that was grown.

    `initial` is the initial network's evaluation; `curves` are the scores in the cycles that trained
    it, which show how far a score comes down. A trial is kept when the rule
    `settings.acceptance.rule` finds its validation score at most `tolerance` (relative) above that
    of the reference: the initial network, the previous one that was kept, or the best one. What
    failed is not tried again before something else was changed. When every candidate has failed, or
    a limit is reached, a last session trains what is left, and the generator ends.

    A removed layer makes another network, and so another trainer, and so do removed filters once
    it pays to cut them out: each decision comes with the trainer of the network that was kept. To go
    on with an interrupted minimization, pass the trainer restored to that state and the records so
    far as `history`: every decision draws its random numbers from (seed, decision), so it continues
    as if it had never stopped.

    Raises:
        UserError: nothing may be removed from the network, or the strategy's answer is no scores.
    """
    records = list(history)
    layers = removable_layers(trainer.network) if settings.layers.tries else []
    if not (records or growing or layers or trainer.network.removable()):
        raise UserError(
            f"network '{trainer.network.model.name}': nothing may be removed from it: it has no hidden "
            "layer of two filters or more, and no second one that may go; start from a larger network"
        )
    probe = Probe(trainer.network, trainer.train, trainer.loss)
    spares: list[Trainer] = []
    while not (records and records[-1].alteration == TRAIN):
        round = Round(trainer.network, probe, select, settings, seed, tuple(records))
        trials = next_growth(growing, round, trainer, initial) or next_trials(round)
        if trials[0].alteration == TRAIN and not trials[0].steps:
            return
        while len(spares) < len(trials) - 1:
            spares.append(trainer.of(with_layers(trainer.network, trainer.network.layers)))
        decisions = decide(trainer, spares, round, trials, initial, curves, progress)
        kept = decisions[-1].trainer
        if decisions[-1].record.accepted and pays(kept, settings.removal.steps):
            kept = kept.of(shrunk(kept.network))
            decisions[-1] = decisions[-1]._replace(trainer=kept)
        if kept is not trainer or trials[0].rebuilds:
            forget_kernels()  # of the network that was left, or that was tried in vain
        if kept is not trainer:
            trainer, spares = kept, []
            probe = Probe(trainer.network, trainer.train, trainer.loss)
        records += [decision.record for decision in decisions]
        yield from decisions


def most_steps(settings: Minimization, growing: Growing | None = None) -> int | None:
    """How many training steps a minimization takes at most by its limits; None if they do not say.

    What a strategy of growth trains to choose comes on top: it is known only afterwards.
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
    """The next trial of growth; none when it is over, or, if nothing is to be removed, the last session."""
    if not growing:
        return []
    now = reference_of("previous", initial.sums[trainer.loss], round.records)
    trial = growth_trial(growing, round, trainer, float(ratio(now.sum(axis=0))))
    if trial or growing.then_shrinks:
        return [trial] if trial else []
    return [Trial(TRAIN, (), round.settings.last_session_steps)]


def decide(
    trainer: Trainer,
    spares: Sequence[Trainer],
    round: Round,
    trials: Sequence[Trial],
    initial: Evaluation,
    curves: Sequence[Sequence[float]],
    progress: Progress,
) -> list[Decision]:
    """Attempt all trials of a round from the same state; keep the best acceptable one, or step back.

    `spares` are trainers of the same network, one for each trial but the first, which run in
    threads of their own. The decision that is kept is the last one.
    """
    before, was = Checkpoint.take(trainer), (trainer.network.filters_kept, *trainer.network.size())
    told = progress.of(
        decision=round.number,
        tried=f"{trials[0].alteration} {in_words(trials[0].alteration, trials[0].filters)}",
        filters=trainer.network.filters_kept,
        done=sum(record.steps for record in round.records),
    )

    def start(candidate: int) -> Attempt:
        own = (trainer, *spares)[candidate]
        if candidate:
            before.restore(own)
        reported = SILENT if candidate else told
        return attempt(own, round.of(candidate), trials[candidate], initial, curves, reported)

    if len(trials) == 1:
        attempts = [start(0)]
    else:
        with ThreadPoolExecutor(len(trials)) as pool:
            attempts = list(pool.map(start, range(len(trials))))
    best = min((a for a in attempts if a.verdict.accepted), key=lambda a: a.score, default=None)
    kept = trainer
    if best is None:
        before.restore(trainer)
    elif trials[0].rebuilds:
        kept = best.trainer
    else:
        best.trained.restore(trainer)
    now = kept.network.filters_kept, *kept.network.size()
    others = [attempt for attempt in attempts if attempt is not best]
    ordered = [*others, best] if best else others
    return [
        Decision(
            record_of(found, round, number, found is best, now if found is best else was),
            found.trained,
            kept,
            settled=found is ordered[-1],
        )
        for number, found in enumerate(ordered, round.number)
    ]


def record_of(
    found: Attempt, round: Round, number: int, kept: bool, left: tuple[tuple[int, ...], int, float]
) -> DecisionRecord:
    """`left`: filters, parameters and multiply-accumulates after the decision."""
    trial, verdict = found.trial, found.verdict
    why = reason(found.session.ended, verdict, found.judge.tolerance)
    if verdict.accepted and not kept:
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
        image_sums=tuple((float(a), float(b)) for a, b in found.evaluation.sums[found.trainer.loss]),
        accepted=kept,
        reason=why,
        filters_kept=filters_kept,
        parameters=parameters,
        macs_per_pixel=macs,
        session=found.session,
        selection_steps=trial.selection_steps,
    )
