"""Trials of growth: train on until that gains nothing more, then grow where the strategy says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from selfscale.config import Growth as GrowthSettings
from selfscale.config import Scaling
from selfscale.nn.fcn import Size, size
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.trainer import Plan, Trainer
from selfscale.nn.widening import grown, hands_on_positive
from selfscale.records import INSERT_LAYER, TRAIN_ON, WIDEN, DecisionRecord, Filter, GrowthStep, last_accepted
from selfscale.search.filter_trials import answer
from selfscale.search.growth import GrowthSubject
from selfscale.search.trial import Round, Trial

COST_UNIT = 1000  # `growth.min_gain` is for so many multiply-accumulates per pixel, or parameters


@dataclass(frozen=True)
class Growing:
    """How a minimization grows its network first; `then_shrinks`: removals follow."""

    settings: GrowthSettings
    limits: Scaling
    select: Callable[[GrowthSubject], np.ndarray]
    then_shrinks: bool = True


def growth_trial(growing: Growing, round: Round, trainer: Trainer, score: float) -> Trial | None:
    """The next step of growth, or None if growth is over; `score` is that of the network as it is.

    A network that was grown is first trained on, in sessions as long as a trial, until one gains less
    than `training.first.min_gain`, or `max_cycles` are over: so that growth is not kept for what
    more training does. Then it grows where the strategy says. A trial is kept if it is better by
    more than the last session without growth was, and by `min_gain` for what it costs. When
    `tries` have failed, or nothing fits in the limits, growth is over; so it is after a removal.
    """
    records, settings, limits = round.records, growing.settings, growing.limits
    if not all(record.grows for record in records):
        return None
    steps = sum(record.steps for record in records)
    if steps + settings.steps > limits.max_steps:
        return None
    if limits.max_seconds is not None and sum(r.session.seconds for r in records) >= limits.max_seconds:
        return None
    first = trainer.settings.first
    sessions = list(takewhile(lambda r: r.alteration == TRAIN_ON, reversed(without_failures(records))))
    if not sessions or (len(sessions) < first.max_cycles and gain_of(sessions[0]) >= first.min_gain):
        return Trial(TRAIN_ON, (), settings.steps)
    failed = {r.filters for r in records[last_accepted(records) :] if r.filters}
    if len(failed) >= settings.tries:
        return None
    pictures = round.probe.images / np.float32(255)
    found = [growth for growth in candidates(round.network) if growth.filters not in failed]
    networks = [grown(round.network, growth, pictures, round.rng(4, n)) for n, growth in enumerate(found)]
    fits = [limits.allows(*size(network.model)) for network in networks]
    found = [growth for growth, fit in zip(found, fits, strict=True) if fit]
    networks = [network for network, fit in zip(networks, fits, strict=True) if fit]
    if not found:
        return None
    now = size(round.network.model)
    costs = np.array([added(size(network.model), now, settings) for network in networks])
    spent: list[int] = []

    def train(network: MaskedNetwork, steps: int) -> float:
        spent.append(steps)
        trainer.of(network).session(Plan(steps, 1), round.rng(5, len(spent)))
        return round.probe.loss_of(network)

    subject = GrowthSubject(round.network, found, networks, costs, round.rng(0), round.probe, train)
    scores = answer(growing.select, subject)
    best = int(np.argmax(scores))
    worth = settings.min_gain * costs[best] / COST_UNIT / score
    return Trial(
        found[best].alteration,
        found[best].filters,
        settings.steps,
        float(scores[best]),
        least_gain=max(gain_of(sessions[0]), worth),
        selection_steps=sum(spent),
    )


def without_failures(records: Sequence[DecisionRecord]) -> list[DecisionRecord]:
    """The records, but those of growth that was not kept."""
    return [record for record in records if record.accepted or record.alteration == TRAIN_ON]


def gain_of(record: DecisionRecord) -> float:
    """How much better a session made the network, relative; 0 if it made it worse."""
    return max(0.0, -record.relative_loss)


def added(after: Size, before: Size, settings: GrowthSettings) -> float:
    return float(getattr(after, settings.per) - getattr(before, settings.per))


def candidates(network: MaskedNetwork) -> list[GrowthStep]:
    """All hidden layers twice as wide, each, and one more behind each that hands on nothing negative."""
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
    """The network in the shape into which the growth in the records brought it; its weights are others."""
    pictures = np.zeros((1, 8, 8, network.model.input_shape[-1]), np.float32)
    for record in records:
        if record.accepted and record.alteration in (WIDEN, INSERT_LAYER):
            growth = GrowthStep(record.alteration, record.filters)
            network = grown(network, growth, pictures, np.random.default_rng(0))
    return network
