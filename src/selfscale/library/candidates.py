"""What of a network may go next: channels and branches, by importance and by the cost that they save."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from selfscale.errors import UserError
from selfscale.library.cost import CostMeter
from selfscale.library.examples import Batch, Source
from selfscale.library.network import Network
from selfscale.library.plan import Plan
from selfscale.search.channel_importance import Arrays, ChannelSubject, importance_of
from selfscale.search.channel_search import BranchState, GroupState, Proposal, some_channels

PROBED = 8  # training batches that gradients are taken from
STAGE = 0.02  # of the network's cost: after so much, gradients are taken anew, and costs


class Candidates:
    """Channels and branches of a network that may go.

    Args:
        plan: Names the strategy and what is protected.
        train: Gradients are taken from its batches.
        meter: Measures what is saved.
        network: The network.
        number: Of the decision.
    """

    def __init__(self, plan: Plan, train: Source, meter: CostMeter, network: Network, number: int) -> None:
        self.plan, self.train, self.meter, self.network = plan, train, meter, network
        self.cost = meter.size_of(network).cost
        self._batches: Iterator[Batch] = train.endlessly(plan.seed)
        self._rng = np.random.default_rng((plan.seed, number))
        self._savings: dict[str, float] = {}
        self.groups = self._states()

    def branches(self) -> list[BranchState]:
        """Return the residual branches and layers that may go."""
        network, keep = self.network, self.network.keep
        importance = {group.name: float(group.importance.sum()) for group in self.groups}
        # Where savings are measured, those of branches follow from what multiply-accumulates save.
        scale = self.cost / max(1, network.graph.cost(keep).macs)
        found = []
        for name, bypass in network.bypasses(self.plan.protect).items():
            inside = [
                importance.get(network.names[group.index], 0.0)
                for group in network.graph.groups
                if {slice.layer for slice in group.producers} & set(bypass.layers)
            ]
            saved = network.graph.cost(keep).macs - network.graph.cost(keep, [bypass]).macs
            parts = frozenset("/".join(layer) for layer in bypass.layers)
            found.append(BranchState(name, sum(inside), saved * scale, parts))
        return found

    def channels(self, target: str, members: Sequence[GroupState], share: float) -> Proposal | None:
        """Return the channels that a share of what the members can save goes with.

        They are chosen in stages, as if those of the stages before were gone: what a channel is worth
        depends on which others are left, and so does what it costs.
        """
        network, before = self.network, self.network.masks.state()
        names = {group.name for group in members}
        wanted = share * min(self.cost, sum(group.saving * len(group.channels) for group in members))
        chosen: dict[str, list[np.ndarray]] = {}
        saved, groups = 0.0, self.groups
        while saved < wanted:
            stage = some_channels(
                [group for group in groups if group.name in names],
                min(wanted - saved, STAGE * self.cost),
                self.plan.round_to,
            )
            if not stage:
                break
            network.disable(stage)
            for name, channels in stage.items():
                chosen.setdefault(name, []).append(channels)
            if self.meter.counted:
                saved = self.cost - self.meter.size_of(network).cost
            else:
                saved += sum(group.saving * len(stage.get(group.name, ())) for group in groups)
            groups = self._states()
        network.masks.restore(before)
        found = {name: np.sort(np.concatenate(parts)) for name, parts in chosen.items()}
        return Proposal(target, share, found, (), saved) if found else None

    def _states(self) -> list[GroupState]:
        network, keep = self.network, self.network.keep
        groups = network.removable(self.plan.protect)
        batches = list(itertools.islice(self._batches, PROBED))
        taken: list[Arrays] = []

        def gradients() -> Sequence[Arrays]:
            taken[:] = network.gradients(batches)
            return taken

        subject = ChannelSubject(groups, network.weights(), gradients, self._rng)
        try:
            importance = importance_of(self.plan.strategy, subject)
        except UserError as error:
            if all(np.isfinite(array).all() for each in taken for array in each.values()):
                raise
            self.train.check_finite(PROBED)
            raise UserError(
                "train: the gradients of the loss are not finite numbers; check the loss, or lower the "
                "learning rate of the optimizer"
            ) from error
        if self.meter.counted or not self._savings:  # measured once: that takes a model for each group
            savings = self.meter.savings(network.graph, keep, groups, network.compact)
            self._savings = {
                network.names[group.index]: saving for group, saving in zip(groups, savings, strict=True)
            }
        return [
            GroupState(name, kept, each[kept], self._savings[name])
            for group, each in zip(groups, importance, strict=True)
            for name, kept in [(network.names[group.index], np.flatnonzero(keep[group.index]))]
        ]
