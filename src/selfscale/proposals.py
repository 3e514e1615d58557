"""What to try next: layers first, then filters by the strategy, then layers again; else the last session."""

from __future__ import annotations

from collections.abc import Iterator

from selfscale import redundancy
from selfscale.filter_trials import filter_trial
from selfscale.layer_trials import cheapest_layers, layer_trial, layer_tries
from selfscale.layers import removable_layers
from selfscale.records import MERGE, REMOVE_LAYER, TRAIN, last_accepted
from selfscale.trial import Round, Trial


def next_trial(round: Round) -> Trial:
    """The next trial that is within the limits, or the last session."""
    if not round.limit_reached():
        for trial in trials(round):
            if round.allows(trial.least_steps):
                return trial
    return Trial(TRAIN, (), round.settings.last_session_steps)


def trials(round: Round) -> Iterator[Trial]:
    """What has not failed since the last change that was kept, in the order in which it is to be tried.

    First whole hidden layers: what is removed at once needs no sessions filter by filter. All but one
    go, when that has failed all but two, and so on, until something was kept. When every such trial
    has failed, filters go that add nothing of their own, then others, as the strategy says. Single
    layers, and further tries of the same, come when no filter is left.
    """
    network, settings, records = round.network, round.settings, round.records
    tried = layer_tries(records)
    layers = removable_layers(network) if settings.layers.tries else []
    count = min(len(layers), len(network.layers) - 1) - len(records)
    if count > 0 and all(r.alteration == REMOVE_LAYER and not r.accepted for r in records):
        yield cheapest_layers(round, layers, count)
    if not round.allows(settings.layers.steps):
        layers = []
    if all(record.alteration == REMOVE_LAYER for record in records[last_accepted(records) :]):
        spare = redundancy.find(network, round.probe, round.probe.split.images)
        if spare:
            yield Trial(MERGE, (spare.filter,), 0, spare=spare)
    for alteration in settings.removal.alterations:
        trial = filter_trial(round, alteration, layers)
        if trial:
            yield trial
    for layer in sorted(layers, key=lambda layer: tried.get(layer, 0)):
        if tried.get(layer, 0) < settings.layers.tries:
            yield layer_trial(round, [layer], tried.get(layer, 0), 0.0)
