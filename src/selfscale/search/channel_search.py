"""Which channels and branches are tried next, in a network too wide to try them one by one.

A trial takes a share of what all groups, some, or one can save, or some of the residual branches. The
share doubles until one fails; from then on the next lies halfway between what is promising and what
failed. So the trials of a target grow with the logarithm of its width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from selfscale.errors import counted

FIRST_SHARE = 0.25
RESOLUTION = 0.1  # of the share: so close to a failure, what is promising gets a long session
LEAST_GAIN = 0.01  # of the network's cost: less is not worth a session
PARTS = 4  # of the groups, tried when all of them together can't give any more
ALL, BRANCHES = "all groups", "branches"
ACCEPTED, PROMISING, FAILED = "accepted", "promising", "failed"
RECOVERY = 0.6  # power of the training steps that the lost score goes down with; see docs/any-model.md
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
    """What is tried next: channels by group, or branches; which share of the target that is."""

    target: str
    share: float
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
        return f"{counted(self.size, 'channel')} of {where}"


class Tried(NamedTuple):
    """What was tried before, and whether it was accepted, promising, or failed."""

    target: str
    share: float
    size: int
    branches: tuple[str, ...]
    outcome: str


Choose = Callable[[str, Sequence[GroupState], float], Proposal | None]


def next_proposal(
    groups: Sequence[GroupState],
    branches: Sequence[BranchState],
    history: Sequence[Tried],
    choose: Choose,
    *,
    cost: float,
) -> Proposal | None:
    """Return what to try next; None if what is promising comes first, or nothing is worth a session.

    Args:
        groups: Groups that may lose channels.
        branches: Residual branches that may go.
        history: All that was tried.
        choose: Returns the channels, of a target's groups, that a share of the cost goes with.
        cost: Of the network now.
    """
    for target, members in targets(groups, history):
        own = [tried for tried in history if tried.target == target]
        low, high, share = bracket(own)
        if low and (high - low < RESOLUTION or target == BRANCHES):
            return None
        if target == BRANCHES:
            failed = {tried.branches for tried in own if tried.outcome == FAILED}
            proposal = some_branches([b for b in branches if (b.name,) not in failed], share)
        else:
            possible = min(cost, sum(group.saving * len(group.channels) for group in members))
            worth_it = share * possible >= LEAST_GAIN * cost
            proposal = choose(target, members, share) if worth_it else None
            proposal = proposal if proposal and between(proposal.size, own) else None
        if proposal and proposal.saving >= LEAST_GAIN * cost:
            return proposal
        if low:
            return None
    return None


def since_accepted(tries: Sequence[Tried]) -> Sequence[Tried]:
    """Return the tries that started from the network of now."""
    accepted = [number for number, tried in enumerate(tries, 1) if tried.outcome == ACCEPTED]
    return tries[accepted[-1] if accepted else 0 :]


def between(size: int, tries: Sequence[Tried]) -> bool:
    """Return whether a proposal is smaller than all that failed, and larger than what is promising."""
    now = since_accepted(tries)
    failed = min((tried.size for tried in now if tried.outcome == FAILED), default=np.inf)
    promising = (tried.size for tried in now if tried.outcome == PROMISING and tried.size < failed)
    return max(promising, default=0) < size < failed


def bracket(tries: Sequence[Tried]) -> tuple[float, float, float]:
    """Return the largest promising share (or 0), the smallest that failed (or 1), and the next one."""
    high, share = 1.0, FIRST_SHARE
    for tried in tries:
        if tried.outcome == FAILED:
            high = min(high, tried.share)
        elif tried.outcome == ACCEPTED and high < 1:
            high = (high - tried.share) / (1 - tried.share)  # of what is left
        if tried.outcome != FAILED:
            share = min(2 * tried.share, (1 + tried.share) / 2)
    promising = [each.share for each in since_accepted(tries) if each.outcome == PROMISING]
    low = max((share for share in promising if share < high), default=0.0)
    return low, high, share if high == 1 else (low + high) / 2


def recovered(relative_loss: float, steps: int, more: int) -> float:
    """Return the relative loss to be expected after `more` training steps, of that after `steps`.

    What was lost goes down with a power of the steps; what was gained stays.
    """
    return min(relative_loss, relative_loss * (steps / (steps + more)) ** RECOVERY)


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


def some_channels(groups: Sequence[GroupState], wanted: float, round_to: int = 1) -> dict[str, np.ndarray]:
    """Return the channels of least importance by cost, by group, which together save about `wanted`.

    Channels go in blocks of `round_to`. A group keeps a block.
    """
    blocks = []  # importance by saving, the group, its channels, saving
    for group in groups:
        order, count = np.argsort(group.importance, kind="stable"), len(group.channels)
        first = count % round_to or min(round_to, count)
        for end in range(first, count, round_to):
            block = order[max(0, end - round_to) if end > first else 0 : end]
            saving = group.saving * len(block)
            value = float(group.importance[block].sum()) / max(saving, TINY)
            blocks.append((value, group.name, group.channels[block], saving))
    chosen: dict[str, list[np.ndarray]] = {}
    saved = 0.0
    for _, name, channels, saving in sorted(blocks, key=lambda block: block[0]):
        if saved and saved + saving / 2 > wanted:
            break
        chosen.setdefault(name, []).append(channels)
        saved += saving
    return {name: np.sort(np.concatenate(parts)) for name, parts in chosen.items()}


def some_branches(branches: Sequence[BranchState], share: float) -> Proposal | None:
    """Return that share of the branches, those of least importance by cost; none lies in another."""
    count = max(1, round(share * len(branches)))
    chosen: list[BranchState] = []
    for branch in sorted(branches, key=lambda branch: branch.importance / max(branch.saving, TINY)):
        if len(chosen) < count and not any(branch.parts & other.parts for other in chosen):
            chosen.append(branch)
    names, saving = tuple(branch.name for branch in chosen), sum(branch.saving for branch in chosen)
    return Proposal(BRANCHES, share, {}, names, saving) if chosen else None
