"""Which channels and branches are tried next, in a network too wide to try them one by one.

A proposal takes a share of what the channels of all groups, of some, or of one save, each removed
alone, or some of the residual branches. Where one group reads another, both count what goes between
them: a quarter of the sum can be nearly half of the network's cost. What it takes from doubles its share
as long as that is accepted; once it fails, the share is halved after each trial, as in bisection: the
trials of a group grow with the logarithm of its width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

FIRST_SHARE, LARGEST_SHARE = 0.25, 0.5
LEAST_GAIN = 0.01  # of the network's cost: less is not worth a session
PARTS = 4  # of the groups, tried when all of them together can't give any more
ALL, BRANCHES = "all groups", "branches"
TINY = 1e-12


@dataclass(frozen=True)
class GroupState:
    """A group's channels that are left.

    Attributes:
        name: Unique in the network.
        channels: Their numbers, int of shape `(n,)`.
        importance: Of each, in any unit, at least 0.
        saving: Cost that goes with one channel.
    """

    name: str
    channels: np.ndarray
    importance: np.ndarray
    saving: float


class BranchState(NamedTuple):
    """A residual branch or a layer that may go: its importance, the cost that goes with it, its layers."""

    name: str
    importance: float
    saving: float
    parts: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Proposal:
    """What is tried next: channels by group, or branches, and the cost that goes with them."""

    target: str
    channels: dict[str, np.ndarray]
    branches: tuple[str, ...]
    saving: float

    @property
    def size(self) -> int:
        return len(self.branches) + sum(map(len, self.channels.values()))

    def __str__(self) -> str:
        if self.branches:
            return f"branch{'es' * bool(self.branches[1:])} {', '.join(self.branches)}"
        where = next(iter(self.channels)) if len(self.channels) == 1 else f"{len(self.channels)} groups"
        return f"{self.size} channel{'s' * (self.size != 1)} of {where}"


class Tried(NamedTuple):
    """What was proposed before, and whether it was accepted."""

    target: str
    size: int
    branches: tuple[str, ...]
    accepted: bool


def next_proposal(
    groups: Sequence[GroupState],
    branches: Sequence[BranchState],
    history: Sequence[Tried],
    *,
    cost: float,
    round_to: int = 1,
) -> Proposal | None:
    """Return what to try next, or None if nothing is left that is worth a session.

    Args:
        groups: Groups that may lose channels.
        branches: Residual branches that may go.
        history: All that was tried.
        cost: Of the network now.
        round_to: A group that loses channels keeps a multiple of so many.
    """
    for target, members in targets(groups, history):
        own = [tried for tried in history if tried.target == target]
        share = next_share(own)
        if target == BRANCHES:
            failed = {tried.branches for tried in own if not tried.accepted}
            proposal = some_branches([b for b in branches if (b.name,) not in failed], share)
            smaller = True  # what failed alone is left out
        else:
            proposal = some_channels(target, members, share, round_to)
            failed_once = any(not tried.accepted for tried in own)
            smaller = not failed_once or (proposal is not None and proposal.size < own[-1].size)
        if proposal and smaller and proposal.saving >= LEAST_GAIN * cost:
            return proposal
    return None


def targets(
    groups: Sequence[GroupState], history: Sequence[Tried]
) -> Iterator[tuple[str, Sequence[GroupState]]]:
    """Yield what shares can be taken from: all groups, branches, parts of the groups, each group."""
    yield ALL, groups
    yield BRANCHES, []
    if len(groups) > PARTS:
        # By position: their members stay the same, whatever becomes less important.
        for number, indices in enumerate(np.array_split(np.arange(len(groups)), PARTS)):
            yield f"part {number + 1} of {PARTS}", [groups[index] for index in indices]
    tried = [each.target for each in history]
    # One that was begun is gone on with.
    for group in sorted(groups, key=lambda group: (group.name not in tried, -worth(group))):
        yield group.name, [group]


def worth(group: GroupState) -> float:
    """Return the cost that a group's least important half saves, by its importance."""
    half = np.sort(group.importance)[: max(1, len(group.importance) // 2)]
    return float(group.saving * len(half) / (half.sum() + TINY))


def next_share(tries: Sequence[Tried]) -> float:
    """Double while trials are accepted; halve after each one from the first failure on."""
    share, failed = FIRST_SHARE, False
    for tried in tries:
        failed = failed or not tried.accepted
        share = share / 2 if failed else min(LARGEST_SHARE, 2 * share)
    return share


def some_channels(
    target: str, groups: Sequence[GroupState], share: float, round_to: int = 1
) -> Proposal | None:
    """Return the channels of least importance by cost, which make up that share of what all of them save.

    Channels go in blocks of `round_to`. A group gives at most half of its own at once, and keeps a block.
    """
    blocks = []  # importance by saving, the group, its channels, saving
    for group in groups:
        order, count = np.argsort(group.importance, kind="stable"), len(group.channels)
        first = count % round_to or min(round_to, count)
        for end in range(first, min(count - 1, max(first, count // 2)) + 1, round_to):
            block = order[max(0, end - round_to) if end > first else 0 : end]
            saving = group.saving * len(block)
            value = float(group.importance[block].sum()) / max(saving, TINY)
            blocks.append((value, group.name, group.channels[block], saving))
    wanted = share * sum(group.saving * len(group.channels) for group in groups)
    chosen: dict[str, list[np.ndarray]] = {}
    saved = 0.0
    for _, name, channels, saving in sorted(blocks, key=lambda block: block[0]):
        if saved and saved + saving / 2 > wanted:
            break
        chosen.setdefault(name, []).append(channels)
        saved += saving
    found = {name: np.sort(np.concatenate(parts)) for name, parts in chosen.items()}
    return Proposal(target, found, (), saved) if found else None


def some_branches(branches: Sequence[BranchState], share: float) -> Proposal | None:
    """Return that share of the branches, those of least importance by cost; none lies in another."""
    count = max(1, round(share * len(branches)))
    chosen: list[BranchState] = []
    for branch in sorted(branches, key=lambda branch: branch.importance / max(branch.saving, TINY)):
        if len(chosen) < count and not any(branch.parts & other.parts for other in chosen):
            chosen.append(branch)
    names, saving = tuple(branch.name for branch in chosen), sum(branch.saving for branch in chosen)
    return Proposal(BRANCHES, {}, names, saving) if chosen else None
