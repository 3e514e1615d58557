from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from selfscale.search.acceptance import RULES, non_inferiority, relative_loss, threshold


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
    """Images that differ a thousandfold, a trial that loses 2 % on each: no doubt about the loss."""
    reference = np.geomspace(0.001, 1.0, 30)
    verdict = non_inferiority(sums(reference * 1.02), sums(reference), 0.03, 0.95)
    assert verdict.accepted
    assert verdict.bound == pytest.approx(0.02)


def test_a_doubtful_trial_is_refused_though_its_mean_is_within():
    reference = np.ones(10)
    trial = np.array([0.2] * 5 + [1.9] * 5)  # 5 % worse on average, but anything may be true
    assert RULES["threshold"](sums(trial), sums(reference), 0.1, 0.95).accepted
    assert not RULES["non_inferiority"](sums(trial), sums(reference), 0.1, 0.95).accepted


def test_false_acceptances_are_as_rare_as_stated():
    """At a true loss that equals the tolerance, about one trial in twenty is accepted."""
    rng = np.random.default_rng(1)
    reference = rng.gamma(9, 1 / 9, (400, 50))
    trial = reference * 1.1 + rng.normal(0, 0.2, reference.shape)
    accepted = [
        non_inferiority(sums(t), sums(r), 0.1, 0.95).accepted for t, r in zip(trial, reference, strict=True)
    ]
    assert 0.02 < np.mean(accepted) < 0.1
