"""Fronts of score against size, and the choice of a network; all results are made up."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats

from comparisons import WAY_JOBS, WAYS, result
from selfscale.errors import UserError
from selfscale.reporting.pareto import best_within, candidates, choose_by_rule, mean_front, pareto_front
from selfscale.settings import Registry


def test_the_initial_network_and_every_accepted_one_are_candidates():
    found = candidates(WAYS, WAY_JOBS)
    assert [(p.seed, p.decision, p.macs_per_pixel) for p in found] == [
        (0, 0, 875.0), (0, 2, 300.0), (0, 3, 200.0), (0, 5, 100.0), (1, 0, 875.0), (1, 1, 150.0),
    ]  # fmt: skip
    assert found[0].path == Path("models/trained/sobel-seed-0/initial.keras")
    assert found[3].path == Path("models/minimized/sobel-random-seed-0/kept/005.keras")


def test_the_front_is_chosen_by_validation():
    found = pareto_front(candidates(WAYS, WAY_JOBS[:1]))
    assert [(p.macs_per_pixel, p.test) for p in found] == [(100.0, 0.007), (200.0, 0.006)]


def test_the_mean_front_begins_where_every_seed_has_a_network():
    found = mean_front(candidates(WAYS, WAY_JOBS))
    assert [(size, estimate.mean) for size, estimate in found] == [
        (150.0, pytest.approx((0.007 + 0.005) / 2)),
        (200.0, pytest.approx((0.006 + 0.005) / 2)),
    ]
    # Student's t for two values, by hand: t(0.975, 1) times half of their distance.
    assert found[0][1].half_width == pytest.approx(stats.t.ppf(0.975, 1) * 0.001)


FRONT = pareto_front(candidates(WAYS, WAY_JOBS))
# As if a network took a millisecond for every hundred multiply-accumulates.
MILLISECONDS = {candidate.path: candidate.macs_per_pixel / 100 for candidate in FRONT}


@pytest.mark.parametrize(
    ("wanted", "macs"),
    [
        ({"max_macs": 1000.0}, 200.0),
        ({"max_macs": 199.0}, 150.0),
        ({"min_score": 0.006}, 150.0),
        ({"min_score": 0.0059}, 200.0),
        ({"max_ms": 1.2}, 100.0),
    ],
)
def test_the_best_within_limits(wanted, macs):
    assert best_within(FRONT, "sobel", **wanted, milliseconds=MILLISECONDS).macs_per_pixel == macs


@pytest.mark.parametrize("wanted", [{"max_macs": 99.0}, {"min_score": 0.0039}, {"max_ms": 0.5}])
def test_where_none_is_within_limits_the_message_says_what_there_is(wanted):
    with pytest.raises(
        UserError, match=r"sobel: .* 100 to 200 multiply-accumulates per pixel, 1.0 to 2.0 ms"
    ):
        best_within(FRONT, "sobel", **wanted, milliseconds=MILLISECONDS)


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        (Registry(), "cosine"),  # of the two smallest within 0.0055, the one with the better score
        (Registry(tolerance=0.4), "taylor"),  # 0.0069 is within 0.007
        (Registry(rule="score"), "random"),
        (Registry(tolerance=0.0), "cosine"),  # no worse than the initial network's 0.005
        (Registry.model_construct(rule="smallest", tolerance=-1.0), "random"),  # none is within: the best
    ],
    ids=str,
)
def test_the_rule_chooses_what_is_registered_by_the_validation_split(rule, chosen):
    found = [
        result("sobel", "random", macs=300, score=0.003),
        result("sobel", "sequential", macs=200, score=0.005),
        result("sobel", "cosine", macs=200, score=0.004),
        result("sobel", "taylor", macs=100, score=0.0069),
        result("canny", "random", macs=50, score=0.001),
    ]
    for entry in found:  # the test split has no say
        final = 1 - entry["validation"]["final"]["mae"]
        entry["test"] = {"initial": {"mae": 0.005}, "final": {"mae": final}}
    comparison = {"results": {f"{r['task']}-{r['strategy']}": r for r in found}}
    assert choose_by_rule(comparison, "sobel", rule)["strategy"] == chosen
    with pytest.raises(UserError, match="has no result of otsu; run `selfscale compare` again"):
        choose_by_rule(comparison, "otsu", rule)


def test_the_guard_of_the_champion_is_the_order_of_the_rule():
    networks = [(0.0055, 0.005, 100.0), (0.004, 0.005, 200.0), (0.005, 0.005, 200.0), (0.006, 0.005, 50.0)]
    by_size, by_score = (
        sorted(networks, key=lambda network: Registry(rule=rule).order(*network))
        for rule in ("smallest", "score")
    )
    assert by_size == networks
    assert [score for score, _, _ in by_score] == [0.004, 0.005, 0.0055, 0.006]
