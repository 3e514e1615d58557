"""What of a network may go next: channels and branches, by importance and by the cost that they save."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from selfscale.library.cost import CostMeter
from selfscale.library.examples import Batch, Source
from selfscale.library.network import Network
from selfscale.library.plan import Plan
from selfscale.search.channel_importance import Arrays, ChannelSubject, importance_of
from selfscale.search.channel_search import BranchState, GroupState

PROBED = 8  # training batches that gradients are taken from


class Candidates:
    """Channels and branches of a network that may go.

    Args:
        plan: Names the strategy and what is protected.
        train: Gradients are taken from its first batches.
        meter: Measures what is saved.
    """

    def __init__(self, plan: Plan, train: Source, meter: CostMeter) -> None:
        self.plan, self.train, self.meter = plan, train, meter
        self._batches: list[Batch] = []

    def of(self, network: Network, number: int) -> tuple[list[GroupState], list[BranchState]]:
        """Return the candidates of decision `number`."""
        keep, groups = network.keep, network.removable(self.plan.protect)
        rng = np.random.default_rng((self.plan.seed, number))
        subject = ChannelSubject(groups, network.weights(), lambda: self._gradients(network), rng)
        importance = importance_of(self.plan.strategy, subject)
        savings = self.meter.savings(network.graph, keep, groups, network.compact)
        states = [
            GroupState(network.names[group.index], kept, each[kept], saving)
            for group, each, saving in zip(groups, importance, savings, strict=True)
            for kept in [np.flatnonzero(keep[group.index])]
        ]
        # Where savings are measured, those of branches follow from what multiply-accumulates save.
        scale = self.meter.size_of(network).cost / max(1, network.graph.cost(keep).macs)
        branches = []
        for name, bypass in network.bypasses(self.plan.protect).items():
            inside = [
                float(each[keep[group.index]].sum())
                for group, each in zip(groups, importance, strict=True)
                if {slice.layer for slice in group.producers} & set(bypass.layers)
            ]
            saved = network.graph.cost(keep).macs - network.graph.cost(keep, [bypass]).macs
            parts = frozenset("/".join(layer) for layer in bypass.layers)
            branches.append(BranchState(name, sum(inside), saved * scale, parts))
        return states, branches

    def _gradients(self, network: Network) -> Sequence[Arrays]:
        if not self._batches:
            self._batches = list(itertools.islice(self.train.endlessly(self.plan.seed), PROBED))
        return network.gradients(self._batches)
