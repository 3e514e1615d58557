from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from selfscale.reporting.statistics import estimate, over_photographs, paired, paired_estimate, summary


def result(seed: int, test: float, macs: float = 150.0, kept: tuple[int, ...] = (3, 0)) -> dict:
    return {
        "task": "sobel",
        "seed": seed,
        "loss": "mae",
        "filters_kept": list(kept),
        "parameters": 154,
        "macs_per_pixel": macs,
        "validation": {"initial": {"mae": 0.005}, "final": {"mae": 0.004}},
        "test": {"initial": {"mae": 0.005}, "final": {"mae": test}},
        "decisions": 10,
        "training_steps": 8000 + seed,
    }


def test_an_interval_by_hand():
    # s = 1, t(0.975, 2) = 4.3027 (tables): 4.3027 / sqrt(3)
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(2.4841, abs=1e-4)
    assert found.seeds == 3


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9).filter(lambda values: np.std(values) > 1e-3))
def test_an_interval_is_that_of_scipys_t_test(values):
    found = estimate(values)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.mean - found.half_width == pytest.approx(interval.low, rel=1e-6, abs=1e-6)
    assert found.mean + found.half_width == pytest.approx(interval.high, rel=1e-6, abs=1e-6)


def test_one_seed_has_no_interval_and_equal_values_an_empty_one():
    assert estimate([7.0]) == (7.0, None, 1)
    assert estimate([7.0, 7.0]) == (7.0, 0.0, 2)
    assert estimate([]) == (None, None, 0)


@pytest.mark.parametrize(
    "values", [[-1.0, -2.0, -0.5, 0.7, -3.0], [0.1, 0.2, 0.3, 0.4, 0.5, -0.1], [0.0] * 5]
)
def test_p_counts_the_sign_patterns_that_are_as_far_from_zero(values):
    means = [abs(np.mean(np.multiply(signs, values))) for signs in product((1, -1), repeat=len(values))]
    expected = np.mean([mean >= abs(np.mean(values)) - 1e-12 for mean in means])
    assert paired_estimate(values).p == pytest.approx(expected)


def test_with_few_seeds_there_is_no_p():
    assert paired_estimate([1.0, 1.0, 1.0, 1.0]).p is None
    assert paired_estimate([1.0, 1.0, 1.0, 1.0, 1.0]).p == pytest.approx(2 / 2**5)


def test_with_many_seeds_p_is_estimated_and_always_the_same():
    values = np.random.default_rng(0).normal(0.5, 1.0, 20).tolist()
    assert paired_estimate(values) == paired_estimate(values)
    assert paired_estimate(values).p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.02)


def test_a_summary_counts_layers_that_are_left():
    found = summary([result(0, 0.004, kept=(3, 0)), result(1, 0.006, kept=(3, 2))])
    assert found["filters"]["mean"] == 4.0
    assert found["hidden_layers"]["mean"] == 1.5
    assert found["test_score"]["mean"] == pytest.approx(0.005)
    # s / sqrt(2) = 0.001, t(0.975, 1) = 12.706
    assert found["test_score"]["half_width"] == pytest.approx(0.012706, rel=1e-4)
    assert found["training_steps"] == {
        "mean": 8000.5,
        "half_width": pytest.approx(6.353, rel=1e-3),
        "seeds": 2,
    }


def test_differences_are_paired_by_seed():
    results = [result(seed, 0.8 * score, macs=100) for seed, score in enumerate((0.002, 0.004, 0.008))]
    references = [result(seed, score, macs=150) for seed, score in enumerate((0.002, 0.004, 0.008))]
    found = paired(results, references)
    assert found["test_score"]["mean"] == pytest.approx(-0.2)
    assert found["test_score"]["half_width"] == pytest.approx(0, abs=1e-12)
    assert found["macs_per_pixel"] == {"mean": -50.0, "half_width": 0.0, "seeds": 3, "p": None}
    assert found["training_steps"]["mean"] == 0.0


def test_nothing_is_relative_to_a_perfect_score():
    found = paired([result(0, 0.1), result(1, 0.2)], [result(0, 0.0), result(1, 0.1)])
    assert (found["test_score"]["mean"], found["test_score"]["seeds"]) == (pytest.approx(1.0), 1)


def test_the_interval_over_many_photographs_is_scipys_bootstrap():
    rng = np.random.default_rng(1)
    sums = np.stack([rng.gamma(2.0, 1.0, 400), rng.uniform(3.0, 5.0, 400)], axis=-1)
    low, high = over_photographs(sums).values()
    found = stats.bootstrap(
        (sums[:, 0], sums[:, 1]),
        lambda a, b, axis=-1: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=2,
    ).confidence_interval
    assert (low, high) == pytest.approx(tuple(found), rel=0.02)
    assert low < sums[:, 0].sum() / sums[:, 1].sum() < high


def test_one_photograph_says_nothing_of_others_and_nothing_over_nothing_is_zero():
    assert over_photographs(np.array([[3.0, 4.0]])) == {"low": 0.0, "high": None}
    assert over_photographs(np.zeros((3, 2))) == {"low": 0.0, "high": 0.0}
