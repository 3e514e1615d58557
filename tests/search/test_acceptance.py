from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm, t

from selfscale.nn.ratios import quotient
from selfscale.search.acceptance import RULES, Judge, bounds, non_inferiority, relative_loss, threshold

SUMS = st.integers(2, 12).flatmap(lambda n: arrays(np.float64, (n, 2), elements=st.floats(0.01, 100)))


def sums(scores: np.ndarray) -> np.ndarray:
    return np.stack([scores, np.ones_like(scores)], axis=1)


def test_relative_loss_by_hand():
    # 6 / 4 against 2 / 4
    assert relative_loss(np.array([[1.0, 1], [5, 3]]), np.array([[1.0, 1], [1, 3]])) == pytest.approx(2.0)


def test_the_threshold_is_the_plain_comparison():
    reference = sums(np.array([1.0, 3.0]))
    assert threshold(sums(np.array([2.0, 2.4])), reference, 0.1 + 1e-12, 0.95).accepted
    assert not threshold(sums(np.array([2.0, 2.41])), reference, 0.1, 0.95).accepted


def test_the_bound_is_close_to_the_normal_one():
    """For many images, mean + 1.645 standard errors of the paired differences."""
    rng = np.random.default_rng(0)
    reference = rng.gamma(4, 1, 400)
    trial = reference * 1.02 + rng.normal(0, 0.5, 400)
    difference = trial - reference * (trial.mean() / reference.mean())
    error = difference.std(ddof=1) / np.sqrt(400) / reference.mean()
    expected = trial.mean() / reference.mean() - 1 + norm.ppf(0.95) * error
    verdict = non_inferiority(sums(trial), sums(reference), 0.1, 0.95)
    assert verdict.bound == pytest.approx(expected, abs=0.15 * error)


def test_pairing_cancels_what_makes_an_image_hard():
    """Photographs that differ a thousandfold, a trial that loses 2 % on each: no doubt about the loss."""
    reference = np.geomspace(0.001, 1.0, 30)
    verdict = non_inferiority(sums(reference * 1.02), sums(reference), 0.03, 0.95)
    assert verdict.accepted
    assert verdict.bound == pytest.approx(0.02)


def test_a_doubtful_trial_is_refused_though_its_mean_is_within():
    reference = np.ones(10)
    trial = np.array([0.2] * 5 + [1.9] * 5)  # 5 % worse on average, but anything may be true
    assert RULES["threshold"](sums(trial), sums(reference), 0.1, 0.95).accepted
    assert not RULES["non_inferiority"](sums(trial), sums(reference), 0.1, 0.95).accepted


@pytest.mark.parametrize("rule", RULES)
def test_a_metric_of_zero_is_the_worst_where_higher_is_better(rule):
    """Then the loss is the reciprocal, as of hits among 10 examples: counts over hits."""
    hits = np.stack([np.ones(10), np.zeros(10)], axis=1)
    assert not RULES[rule](hits, sums(np.ones(10)), 0.1, 0.95).accepted
    assert relative_loss(hits, sums(np.ones(10))) == np.inf


@given(SUMS, st.floats(0.6, 0.999))
def test_the_bounds_are_at_least_as_wide_as_the_plain_bootstraps(sums, confidence):
    """With one image of each photograph, that is the bootstrap over images."""
    n = len(sums)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=4000)
    plain = quotient(weights @ sums)
    low, high = bounds(quotient, sums, confidence)
    assert low <= np.quantile(plain, 1 - confidence, method="lower")
    assert high >= np.quantile(plain, confidence, method="higher")
    assert low <= quotient(sums.sum(axis=0)) <= high


def test_the_bounds_of_few_means_are_those_of_student():
    """With equal denominators the jackknife's error is that of a mean: the t interval, or wider."""
    values = np.array([1.0, 2.0, 4.0])
    low, high = bounds(quotient, sums(values), 0.95)
    margin = t.ppf(0.95, 2) * values.std(ddof=1) / np.sqrt(3)
    assert (low, high) == pytest.approx((values.mean() - margin, values.mean() + margin))


def test_an_equal_network_is_accepted_also_where_nothing_is_to_be_found():
    reference = np.zeros((5, 2))
    reference[0] = (0.5, 2.0)
    for same in (reference, reference[1:], reference[:1]):
        assert non_inferiority(same, same, 0.0, 0.95) == (True, 0.0, 0.0)
    worse = np.array([[0.1, 2.0], [0.0, 1.0]])
    assert non_inferiority(worse, np.array([[0.0, 2.0], [0.0, 1.0]]), 0.5, 0.95) == (False, np.inf, np.inf)


def test_one_photograph_proves_nothing():
    verdict = non_inferiority(np.array([[0.5, 1.0]]), np.array([[1.0, 1.0]]), 0.1, 0.95)
    assert verdict == (False, -0.5, np.inf)


def test_looks_share_the_risk():
    rng = np.random.default_rng(0)
    reference, trial = sums(rng.gamma(4, 1, 20)), sums(rng.gamma(4, 1, 20))
    once, four = (Judge(reference, 0.1, non_inferiority, 0.95, looks)(trial, "completed") for looks in (1, 4))
    assert once == non_inferiority(trial, reference, 0.1, 0.95)
    assert four == non_inferiority(trial, reference, 0.1, 0.9875)
    assert four.bound > once.bound


@pytest.mark.parametrize("count", [8, 50])
def test_false_acceptances_are_as_rare_as_stated(count):
    """At a true loss that equals the tolerance, at most one trial in twenty is accepted."""
    rng = np.random.default_rng(1)
    reference = rng.gamma(9, 1 / 9, (400, count))
    trial = reference * 1.1 + rng.normal(0, 0.2, reference.shape)
    accepted = [
        non_inferiority(sums(t), sums(r), 0.1, 0.95).accepted for t, r in zip(trial, reference, strict=True)
    ]
    assert 0.01 < np.mean(accepted) <= 0.06
