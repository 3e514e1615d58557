from __future__ import annotations

import math

import numpy as np
import pytest

from selfscale.search.channel_search import (
    ALL,
    BRANCHES,
    BranchState,
    GroupState,
    Tried,
    next_proposal,
    some_channels,
)


class Fake:
    """A network whose groups can lose all but so many of their channels, each 1 of cost."""

    def __init__(self, widths: list[int], needed: list[int], branches: dict[str, bool] | None = None) -> None:
        self.left = {f"g{i}": np.arange(width) for i, width in enumerate(widths)}
        self.needed = {f"g{i}": count for i, count in enumerate(needed)}
        self.branches = branches or {}

    def search(self, round_to: int = 1) -> list[Tried]:
        history: list[Tried] = []
        while True:
            # The channels with high numbers are the important ones.
            groups = [
                GroupState(name, channels, 1.0 + channels, 1.0)
                for name, channels in self.left.items()
                if len(channels) > 1
            ]
            branches = [BranchState(name, 1.0, 5.0) for name in self.branches]
            cost = sum(map(len, self.left.values())) + 5.0 * len(branches)
            proposal = next_proposal(groups, branches, history, cost=cost, round_to=round_to)
            if proposal is None:
                return history
            after = {
                name: np.setdiff1d(kept, proposal.channels.get(name, [])) for name, kept in self.left.items()
            }
            accepted = all(len(after[name]) >= self.needed[name] for name in after)
            accepted = accepted and all(self.branches[name] for name in proposal.branches)
            if accepted:
                self.left = after
                for name in proposal.branches:
                    del self.branches[name]
            history.append(Tried(proposal.target, proposal.size, proposal.branches, accepted))


def test_everything_that_can_go_goes():
    fake = Fake([16, 16, 8], [4, 12, 1])
    fake.search()
    assert {name: len(kept) for name, kept in fake.left.items()} == {"g0": 4, "g1": 12, "g2": 1}


def test_trials_grow_with_the_logarithm_of_the_width():
    trials = []
    for width in (64, 1024, 16384):
        fake = Fake([width] * 4, [width // 3, width // 5, width // 2, width // 7])
        trials.append(len(fake.search()))
        total = sum(map(len, fake.left.values())) / width
        assert total < 1.35  # of 4; 1.18 is needed, and single percents are not worth a session
    assert trials[2] - trials[1] <= 4 * math.log2(16)
    assert trials[2] < 60


def test_share_doubles_while_accepted_and_is_halved_from_the_first_failure_on():
    fake = Fake([1000], [200])
    sizes = [(tried.size, tried.accepted) for tried in fake.search() if tried.target == ALL]
    assert sizes[:3] == [(250, True), (375, True), (187, False)]
    assert all(accepted or size < 200 for size, accepted in sizes[2:])
    assert 200 <= len(fake.left["g0"]) <= 210


def test_each_group_keeps_a_multiple_and_at_least_a_block():
    fake = Fake([20, 32, 7], [1, 1, 1])
    fake.search(round_to=8)
    assert all(len(kept) % 8 == 0 or len(kept) == 7 for kept in fake.left.values())
    assert len(fake.left["g0"]) == len(fake.left["g1"]) == 8


def test_cheap_channels_stay_where_dear_ones_of_equal_importance_go():
    groups = [
        GroupState("cheap", np.arange(8), np.ones(8), 1.0),
        GroupState("dear", np.arange(8), np.ones(8), 10.0),
    ]
    proposal = some_channels(ALL, groups, share=0.25)
    assert proposal is not None
    assert list(proposal.channels) == ["dear"]
    assert proposal.saving == pytest.approx(0.25 * 88, abs=5.0)


def test_branches_that_failed_alone_are_left_out():
    fake = Fake([8], [8], {"a": True, "b": False, "c": True})
    history = [tried for tried in fake.search() if tried.target == BRANCHES]
    assert set(fake.branches) == {"b"}
    assert [tried.branches for tried in history if not tried.accepted] == [("b",)]
