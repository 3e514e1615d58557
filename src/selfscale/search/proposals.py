"""What to try next: layers first, then filters by the strategy, then layers again; else the last session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from selfscale.nn import redundancy
from selfscale.nn.layer_removal import removable_layers
from selfscale.records import MERGE, REMOVE_LAYER, TRAIN, last_accepted
from selfscale.search.filter_trials import filter_trials
from selfscale.search.layer_trials import cheapest_layers, layer_trial, layer_tries
from selfscale.search.trial import Round, Trial


def next_trials(round: Round) -> list[Trial]:
    """The next trial that is within the limits, or the last session; with those to be tried beside it.

    Beside a trial of filters come those that would follow if it failed, `speculative` in all.
    """
    if not round.limit_reached():
        for trial, *beside in trials(round):
            if round.allows(trial.least_steps):
                fitting = [trial]
                for other in beside[: round.decisions_left() - 1]:
                    if round.allows(sum(one.least_steps for one in (*fitting, other))):
                        fitting.append(other)
                return fitting
    return [Trial(TRAIN, (), round.settings.last_session_steps)]


def trials(round: Round) -> Iterator[Sequence[Trial]]:
    """What has not failed since the last change that was kept, in the order in which it is to be tried.

    First whole hidden layers: what is removed at once needs no sessions filter by filter. All but one
    go, when that has failed all but two, and so on, until something was kept. When every such trial
    has failed, filters go that add nothing of their own, then others, as the strategy says. Single
    layers, and further tries of the same, come when no filter is left.
    """
    network, settings, records = round.network, round.settings, round.records
    tried = layer_tries(records)
    layers = removable_layers(network) if settings.layers.tries else []
    removals = round.removals
    count = min(len(layers), len(network.layers) - 1) - len(removals)
    if count > 0 and all(r.alteration == REMOVE_LAYER and not r.accepted for r in removals):
        yield [cheapest_layers(round, layers, count)]
    if not round.allows(settings.layers.steps):
        layers = []
    if all(record.alteration == REMOVE_LAYER for record in records[last_accepted(records) :]):
        spare = redundancy.find(network, round.probe, round.probe.split.images)
        if spare:
            yield [Trial(MERGE, (spare.filter,), 0, spare=spare)]
    for alteration in settings.removal.alterations:
        found = filter_trials(round, alteration, layers)
        if found:
            yield found
    for layer in sorted(layers, key=lambda layer: tried.get(layer, 0)):
        if tried.get(layer, 0) < settings.layers.tries:
            yield [layer_trial(round, [layer], tried.get(layer, 0), 0.0)]
