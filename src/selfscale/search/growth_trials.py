"""Growth: train on until that gains nothing more, then widen where the strategy says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from selfscale.decisions import (
    INSERT_LAYER,
    TRAIN_ON,
    WIDEN,
    DecisionRecord,
    Filter,
    GrowthStep,
    last_accepted,
)
from selfscale.nn.fcn import Size, size
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.trainer import Plan, Trainer
from selfscale.nn.widening import grown, hands_on_positive
from selfscale.search.growth import GrowthSubject
from selfscale.search.importance import scores_of
from selfscale.search.trial import Round, Trial
from selfscale.search_config import Growth, Scaling

COST_UNIT = 1000  # `growth.min_gain` is for so many multiply-accumulates per pixel, or parameters


@dataclass(frozen=True)
class Growing:
    """How a minimization grows its network first; `then_shrinks`: removals follow."""

    settings: Growth
    limits: Scaling
    select: Callable[[GrowthSubject], np.ndarray]
    then_shrinks: bool = True

    def is_over(self, records: Sequence[DecisionRecord]) -> bool:
        """Return whether a removal was tried, or a limit is reached."""
        limits = self.limits
        steps = sum(record.steps for record in records)
        seconds = sum(record.session.seconds for record in records)
        return (
            not all(record.grows for record in records)
            or steps + self.settings.steps > limits.max_steps
            or (limits.max_seconds is not None and seconds >= limits.max_seconds)
        )


def growth_trial(growing: Growing, round: Round, trainer: Trainer, score: float) -> Trial | None:
    """Return the next trial of growth, or None if growth is over.

    A network is first trained on, in sessions as long as a trial, until one gains less than
    `training.first.min_gain`, or `max_cycles` are over: so that growth is not accepted for what more
    training does. A trial of growth is accepted if its gain exceeds both that of the last session
    without growth, and `min_gain` for what it costs; towards a target, if it gains at all. Growth is over
    when `tries` have failed, or nothing fits in the limits.

    Args:
        growing: Settings and limits.
        round: State to choose from.
        trainer: Trainer of the network as it is.
        score: Validation loss of the network as it is.
    """
    records, settings = round.records, growing.settings
    if growing.is_over(records):
        return None
    first = trainer.settings.first
    sessions = list(takewhile(lambda r: r.alteration == TRAIN_ON, reversed(without_failures(records))))
    if not sessions or (len(sessions) < first.max_cycles and gain_of(sessions[0]) >= first.min_gain):
        return Trial(TRAIN_ON, (), settings.steps, learning_rate=settings.learning_rate)
    failed = {r.filters for r in records[last_accepted(records) :] if r.filters}
    found = {} if len(failed) >= settings.tries else grown_within(growing.limits, round, failed)
    if not found:
        return None
    steps, networks = list(found), list(found.values())
    now = size(round.network.model)
    costs = np.array([added(size(network.model), now, settings) for network in networks])
    spent: list[int] = []

    def train(network: MaskedNetwork, count: int) -> float:
        spent.append(count)
        trainer.of(network).session(Plan(count, 1, settings.learning_rate), round.rng(5, len(spent)))
        return round.probe.loss_of(network)

    subject = GrowthSubject(round.network, steps, networks, costs, round.rng(0), round.probe, train)
    scores = scores_of(growing.select, subject)
    best = int(np.argmax(scores))
    worth = settings.min_gain * costs[best] / COST_UNIT / score
    targeted = round.settings.target is not None  # whatever it costs
    return Trial(
        *steps[best],
        settings.steps,
        float(scores[best]),
        settings.learning_rate,
        least_gain=0.0 if targeted else max(gain_of(sessions[0]), worth),
        selection_steps=sum(spent),
    )


def grown_within(
    limits: Scaling, round: Round, failed: Collection[tuple[Filter, ...]]
) -> dict[GrowthStep, MaskedNetwork]:
    """Return the grown network of each candidate that has not failed and is within the limits."""
    steps = [step for step in candidates(round.network) if step.filters not in failed]
    found = {
        step: grown(round.network, step, round.probe.images, round.rng(4, number))
        for number, step in enumerate(steps)
    }
    return {step: network for step, network in found.items() if limits.allows(*size(network.model))}


def without_failures(records: Sequence[DecisionRecord]) -> list[DecisionRecord]:
    """Return the records without growth that was reverted."""
    return [record for record in records if record.accepted or record.alteration == TRAIN_ON]


def gain_of(record: DecisionRecord) -> float:
    """Return by how much a session lowered the loss, relative; 0 if it raised it."""
    return max(0.0, -record.relative_loss)


def added(after: Size, before: Size, settings: Growth) -> float:
    return float(getattr(after, settings.per) - getattr(before, settings.per))


def candidates(network: MaskedNetwork) -> list[GrowthStep]:
    """Return all ways to grow: all layers twice as wide, each of them, and a new layer behind each.

    None behind a layer whose output may be negative.
    """
    found = []
    for layers in dict.fromkeys((tuple(network.layers), *((layer,) for layer in network.layers))):
        new = [
            Filter(layer, network.widths[layer] + n)
            for layer in layers
            for n in range(network.block(layer).filters)
        ]
        found.append(GrowthStep(WIDEN, tuple(new)))
    for layer in network.layers:
        if hands_on_positive(network.block(layer)):
            count = network.block(layer).filters
            found.append(GrowthStep(INSERT_LAYER, tuple(Filter(layer + 1, n) for n in range(count))))
    return found


def replayed(network: MaskedNetwork, records: Sequence[DecisionRecord]) -> MaskedNetwork:
    """Return a network grown as the records say; its weights are others."""
    images = np.zeros((1, 8, 8, network.model.input_shape[-1]), np.uint8)
    for record in records:
        if record.accepted and record.alteration in (WIDEN, INSERT_LAYER):
            step = GrowthStep(record.alteration, record.filters)
            network = grown(network, step, images, np.random.default_rng(0))
    return network
