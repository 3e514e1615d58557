from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine as cosine_distance
from scipy.spatial.distance import pdist, squareform

from conftest import bind
from selfscale.decisions import Filter
from selfscale.errors import UserError
from selfscale.nn.similarity import cosine_similarity
from selfscale.search.importance import STRATEGIES, Subject

ROWS = [
    np.array([[1.0, 0, 0], [1.0, 1, 0], [0, 0, -1.0], [-1.0, -1, 0.1]]),
    np.array([[1.0, 2], [2.0, 4], [3.0, -1]]),
]


class Measured:
    """Measurements by hand in the place of those on images."""

    def losses_without(self, candidates):
        return np.array([1.0 + 0.1 * ((3 * f.layer + f.index + 2) % 5) for f in candidates])

    def losses_refitted(self, candidates, rng):
        return np.array([0.9 if f == Filter(1, 2) else 2.0 for f in candidates])

    def gradients(self):
        return [np.array([0.3, -0.1, 0.2, 0.4]), np.array([0.5, -0.6, 0.7])]

    def activations(self):
        return [np.array([0.3, 0.1, 0.2, 0.4]), np.array([0.5, 0.05, 0.7])]

    def zeros(self):
        return [np.array([0.3, 0.1, 0.2, 0.9]), np.array([0.5, 0.6, 0.7])]


def subject(off: set[Filter] = frozenset(), last: Filter | None = None, seed: int = 0, rows=ROWS) -> Subject:
    active = [np.array([Filter(layer, i) not in off for i in range(len(r))]) for layer, r in enumerate(rows)]
    candidates = [
        Filter(layer, i)
        for layer, r in enumerate(rows)
        for i in range(len(r))
        if active[layer][i] and active[layer].sum() > 1
    ]
    return Subject(
        candidates, active, lambda layer: rows[layer], last, np.random.default_rng(seed), Measured()
    )


def best(name: str, chosen: Subject, **arguments) -> Filter:
    return chosen.candidates[int(np.argmax(bind(name, arguments)(chosen)))]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # Layer 1 has two parallel filters: similarity 1. By mean they share it with one at
        # (1, 2).(3, -1) / sqrt(5 * 10) = 0.1414: 0.57; in layer 0, |similarities| of filter 1 are
        # 0.71, 0, 0.997: mean 0.57 as well but smaller, by its signed ones it is no candidate.
        ({"over": "maximum"}, Filter(1, 0)),
        ({"over": "mean", "absolute": False}, Filter(1, 0)),
        ({"over": "maximum", "absolute": False}, Filter(1, 0)),
    ],
)
def test_cosine_picks_the_most_similar(arguments, expected):
    assert best("cosine", subject(), **arguments) == expected


@pytest.mark.parametrize("over", ["mean", "maximum"])
@pytest.mark.parametrize("absolute", [True, False])
def test_cosine_against_scipy(over, absolute):
    off = {Filter(0, 0)}
    scores = bind("cosine", {"over": over, "absolute": absolute})(subject(off))
    for candidate, score in zip(subject(off).candidates, scores, strict=True):
        rows = ROWS[candidate.layer]
        others = [
            1 - cosine_distance(rows[candidate.index], rows[i])
            for i in range(len(rows))
            if i != candidate.index and Filter(candidate.layer, i) not in off
        ]
        others = np.abs(others) if absolute else np.array(others)
        assert score == pytest.approx(others.mean() if over == "mean" else others.max())


def test_cosine_similarity_of_a_filter_of_zeros_is_zero():
    assert cosine_similarity(np.array([[0.0, 0], [1, 1]])).tolist() == [[0, 0], [0, pytest.approx(1)]]


def test_sequential_goes_on_behind_the_last_and_starts_over():
    tried, last = [], None
    for _ in range(9):
        last = best("sequential", subject({Filter(0, 1)}, last))
        tried.append(last)
    order = subject({Filter(0, 1)}).candidates
    assert tried == [*order, *order[: 9 - len(order)]]
    assert best("sequential", subject({Filter(0, 2)}, Filter(0, 2))) == Filter(0, 3)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("leave_one_out", {"refit": False}, Filter(0, 3)),  # the loss without it is 1.0
        ("leave_one_out", {}, Filter(1, 2)),  # 0.9, once what reads it is refitted
        ("magnitude", {}, Filter(0, 0)),  # weights 1, 0, 0, as small as those of filter 2, but first
        ("taylor", {}, Filter(0, 1)),
        ("activation", {}, Filter(1, 1)),
        ("activation", {"by": "zeros"}, Filter(0, 3)),
    ],
)
def test_what_each_measure_would_remove_first(name, arguments, expected):
    assert best(name, subject(), **arguments) == expected


def test_geometric_median_is_the_filter_closest_to_the_others():
    """Against scipy's distances; the middle one of three on a line is closest to both others."""
    line = [np.array([[0.0, 0], [1.0, 1], [2.1, 2.1]])]
    assert best("geometric_median", subject(rows=line)) == Filter(0, 1)
    assert best("geometric_median", subject({Filter(0, 0)}, rows=line)) == Filter(0, 1)
    distances = squareform(pdist(ROWS[0])).sum(axis=1) / np.sqrt(3) / 3
    np.testing.assert_allclose(bind("geometric_median", {})(subject())[:4], -distances)


def test_random_is_fair_and_seeded():
    picks = [best("random", subject(seed=seed)) for seed in range(700)]
    counts = [picks.count(candidate) for candidate in subject().candidates]
    assert min(counts) > 60 and max(counts) < 140  # 100 each, about 9 deviation
    assert picks[:50] == [best("random", subject(seed=seed)) for seed in range(50)]


def without_layers(off: set[Filter], removed: set[int], rows: list[np.ndarray]) -> Subject:
    """Removed layers have no filter and weights of zero; the last filter of a layer is a candidate."""
    active = [
        np.array([layer not in removed and Filter(layer, i) not in off for i in range(len(r))])
        for layer, r in enumerate(rows)
    ]
    weights = [np.zeros((len(r), 1)) if layer in removed else r for layer, r in enumerate(rows)]
    candidates = [Filter(layer, int(i)) for layer, a in enumerate(active) for i in np.flatnonzero(a)]
    return Subject(candidates, active, weights.__getitem__, None, np.random.default_rng(0), Measured())


@given(
    st.sets(st.sampled_from(subject().candidates), max_size=5),
    st.sampled_from([{0}, {1}, set()]),
    st.sampled_from(STRATEGIES.names),
)
def test_every_strategy_scores_what_is_left_when_layers_are_gone(off, removed, name):
    chosen = without_layers(off, removed, ROWS)
    scores = bind(name, {})(chosen)
    assert scores.shape == (len(chosen.candidates),)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", ["magnitude", "taylor", "activation", "geometric_median", "cosine"])
def test_layers_that_are_gone_change_no_score_of_the_others(name):
    whole, smaller = without_layers(set(), set(), ROWS), without_layers(set(), {1}, ROWS)
    np.testing.assert_allclose(bind(name, {})(smaller), bind(name, {})(whole)[:4])


@pytest.mark.parametrize("name", ["cosine", "geometric_median"])
def test_the_last_filter_of_a_layer_is_like_no_other(name):
    """So it comes last, by strategies that look for what the rest of the layer can replace."""
    chosen = without_layers({Filter(1, 0), Filter(1, 2)}, set(), ROWS)
    assert int(np.argmin(bind(name, {})(chosen))) == chosen.candidates.index(Filter(1, 1))


@given(
    st.sets(st.sampled_from(subject().candidates), max_size=5),
    st.sampled_from(STRATEGIES.names),
)
def test_every_strategy_scores_every_candidate_finitely(off, name):
    chosen = subject(off)
    scores = bind(name, {})(chosen)
    assert scores.shape == (len(chosen.candidates),)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("cosin", {}, "strategies.select: 'cosin' is unknown; did you mean 'cosine'"),
        ("cosine", {"ovr": "mean"}, "strategies.arguments: 'ovr' is unknown; did you mean 'over'"),
        ("cosine", {"over": "median"}, "strategies.arguments.over"),
        ("random", {"seed": 1}, "strategies.arguments: 'seed' is unknown"),
    ],
)
def test_a_wrong_strategy_is_named_in_one_line(name, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        bind(name, arguments)
    assert "\n" not in str(caught.value)
