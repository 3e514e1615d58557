"""What a trial does to filters, and that reverting undoes all of it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from conftest import bind, new_trainer
from networks import assert_equal, everything, plain_removal
from selfscale.decisions import Filter
from selfscale.nn import redundancy
from selfscale.nn.alterations import ALTERATIONS, reinitialize
from selfscale.nn.checkpoint import Checkpoint
from selfscale.nn.fcn import build
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.metrics import Evaluation
from selfscale.nn.trainer import Plan
from selfscale.progress import Moment, Progress
from selfscale.search.loop import minimize
from selfscale.search_config import LayerRemoval, Limits, Minimization

FILTERS = (Filter(0, 2), Filter(1, 0), Filter(1, 3))
BOUNDLESS = Evaluation({"mae": np.array([[1e9, 1.0]] * 5)}, 0.0, 1.0)
UNREACHABLE = Evaluation({"mae": np.array([[1e-9, 1.0]] * 5)}, 0.0, 1.0)


def settings(alteration: str, **limits: int) -> Minimization:
    return Minimization(
        removal=plain_removal(alterations=[alteration], group=1, steps=12),
        layers=LayerRemoval(tries=0),
        last_session_steps=0,
        max_cycles=1,
        stop_hopeless=False,
        limits=Limits(**{"steps": None} | limits),
    )


@pytest.fixture(autouse=True)
def nothing_is_merged(monkeypatch):
    """Silent filters, of which a network as small as this one often has some, would come first."""
    monkeypatch.setattr(redundancy, "find", lambda *_: None)


@pytest.fixture
def trained(train_split, validation_split):
    trainer = new_trainer(train_split, validation_split)
    trainer.session(Plan(30, 1), np.random.default_rng(0))
    return trainer


def rows(network: MaskedNetwork) -> dict[Filter, np.ndarray]:
    """The weights of each hidden filter."""
    return {
        Filter(layer, index): row.copy()
        for layer in network.layers
        for index, row in enumerate(network.filter_weights(layer))
    }


def moved(before: dict[Filter, np.ndarray], after: dict[Filter, np.ndarray]) -> set[Filter]:
    return {filter for filter in before if not np.array_equal(before[filter], after[filter])}


@pytest.mark.parametrize("filters", [FILTERS[:1], FILTERS], ids=["one", "several"])
@pytest.mark.parametrize("name", ALTERATIONS)
def test_each_is_undone_exactly(trained, name, filters):
    trained.network.disable(Filter(1, 1))
    trained.network.freeze(Filter(0, 0))
    before, checkpoint = everything(trained), Checkpoint.take(trained)
    trained.session(Plan(6, 1), np.random.default_rng(1))
    expected = everything(trained)
    checkpoint.restore(trained)
    ALTERATIONS[name](trained.network, filters, np.random.default_rng(4))
    assert any(not np.array_equal(a, b) for a, b in zip(everything(trained), before, strict=True))
    trained.reset()
    trained.session(Plan(6, 1), np.random.default_rng(2))
    checkpoint.restore(trained)
    assert_equal(everything(trained), before)
    assert trained.network.frozen() == [Filter(0, 0)]
    trained.session(Plan(6, 1), np.random.default_rng(1))  # and what is trained next is the same
    assert_equal(everything(trained), expected)


@pytest.mark.parametrize("name", ALTERATIONS)
def test_a_minimization_that_keeps_nothing_leaves_everything_as_it_was(trained, name):
    before = everything(trained)
    decisions = minimize(
        trained, bind("random", {}), settings(name, decisions=3), seed=0, initial=UNREACHABLE
    )
    kept = []
    for decision in decisions:
        kept.append(decision.record.accepted)
        if not any(kept):
            assert_equal(everything(trained), before)
    # A filter that is drawn anew is compared with what it was, which an unreachable limit does not touch.
    assert name == "reinitialize" or kept == [False] * 3


def test_disabling_alters_only_what_reads_the_filters(trained):
    expected = trained.network.state().weights
    expected[2][:, :, 2] = 0  # the second layer's kernel reads the first layer's filters
    expected[4][:, :, [0, 3]] = 0
    ALTERATIONS["disable"](trained.network, FILTERS, np.random.default_rng(0))
    assert_equal(trained.network.state().weights, expected)
    assert trained.network.filters_kept == (2, 2)
    assert trained.network.frozen() == []


def test_the_neighbours_of_what_is_removed_are_frozen(trained):
    ALTERATIONS["disable_and_freeze"](trained.network, FILTERS[1:], np.random.default_rng(0))
    assert trained.network.filters_kept == (3, 2)
    assert trained.network.frozen() == [Filter(1, 1), Filter(1, 2)]


def test_neighbours_keep_still_in_the_first_session_and_move_in_the_second(trained):
    network, states = trained.network, [rows(trained.network)]
    output = [network.filter_weights(2).copy()]

    def listener(moment: Moment) -> None:
        if moment.step == 12:  # the end of a session
            states.append(rows(network))
            output.append(network.filter_weights(2).copy())

    def last_layer_first(subject):
        return np.array([filter == Filter(1, 0) for filter in subject.candidates], dtype=float)

    (decision,) = minimize(
        trained,
        last_layer_first,
        settings("disable_and_freeze", decisions=1),
        seed=0,
        initial=BOUNDLESS,
        progress=Progress(listener),
    )
    assert decision.record.filters == (Filter(1, 0),)
    assert decision.record.session.steps == 24
    assert [step for step, _ in decision.record.session.scores] == [6, 12, 18, 24]
    first, second = (moved(a, b) for a, b in pairwise(states))
    assert {filter.layer for filter in first} == {0}
    assert {filter.layer for filter in second} == {0, 1}
    assert Filter(1, 0) not in second
    assert all(not np.array_equal(a, b) for a, b in pairwise(output))
    assert network.frozen() == []
    assert network.filters_kept == (3, 3)


def test_only_the_chosen_filters_are_drawn_anew_by_their_initializers():
    network = MaskedNetwork(build([3, 4], kernel=3, mean=1.0, deviation=0.1))
    for block in network.blocks:
        block.convolution.set_weights([np.zeros_like(w) for w in block.convolution.get_weights()])
    before, output = rows(network), network.filter_weights(2).copy()
    ALTERATIONS["reinitialize"](network, FILTERS, np.random.default_rng(0))
    drawn = rows(network)
    assert moved(before, drawn) == set(FILTERS)
    np.testing.assert_array_equal(network.filter_weights(2), output)
    for filter in FILTERS:
        weights = drawn[filter]
        assert np.abs(weights[:-1] - 1.0).max() <= 0.2 + 1e-6 and weights[-1] == 0
        assert np.unique(weights[:-1]).size > 1
    assert network.filters_kept == (3, 4)
    ALTERATIONS["reinitialize"](network, FILTERS, np.random.default_rng(0))
    assert moved(drawn, rows(network)) == set()  # the same numbers, the same filters


def test_reinitialize_by_the_initial_number():
    """In a network of layers 0 and 2 of three."""
    network = MaskedNetwork(build([3, 2], kernel=3), widths=[3, 4, 2], layers=[0, 2])
    before, output = rows(network), network.filter_weights(3).copy()
    reinitialize(network, [Filter(2, 1)], np.random.default_rng(0))
    assert moved(before, rows(network)) == {Filter(2, 1)}
    np.testing.assert_array_equal(network.filter_weights(3), output)


def test_a_filter_drawn_anew_is_kept_only_if_that_was_better(trained):
    """Whatever the tolerance: else it would be kept for getting worse."""
    start = trained.evaluate_loss()
    chosen = settings("reinitialize", decisions=8).model_copy(update={"tolerance": 1e9})
    decisions = minimize(trained, bind("sequential", {}), chosen, seed=0, initial=BOUNDLESS)
    records = []
    for record, _, kept, *_ in decisions:
        records.append(record)
        assert kept.network.filters_kept == (3, 4)
    best = 1e9  # of the initial network, which this minimization was told
    for record in records:
        assert record.alteration == "reinitialize" and len(record.filters) == 1
        assert record.accepted == (record.score <= best)
        assert record.limit == pytest.approx(best)
        best = record.score if record.accepted else best
    assert records[0].accepted and not all(record.accepted for record in records)
    assert trained.evaluate_loss() == pytest.approx(best) and best < 1e9 and start < 1e9


def test_each_filter_is_drawn_anew_once(trained):
    """What was drawn anew and kept is no reason to do so again: that could go on for ever."""
    decisions = minimize(
        trained,
        bind("random", {}),
        settings("reinitialize"),
        seed=1,
        initial=trained.evaluator(trained.validation),
    )
    tried = [decision.record.filters[0] for decision in decisions]
    assert sorted(tried) == trained.network.removable()


def test_alterations_are_tried_in_their_order(trained):
    """Filters that may not go are drawn anew before the minimization ends, and only then."""
    both = settings("disable").model_copy(
        update={
            "removal": plain_removal(
                alterations=["disable", "reinitialize"], group=1, steps=4, max_failures=None
            )
        }
    )
    decisions = minimize(trained, bind("sequential", {}), both, seed=0, initial=UNREACHABLE)
    names = [decision.record.alteration for decision in decisions]
    assert names[:8] == ["disable"] * 7 + ["reinitialize"]
    assert names.count("reinitialize") == 7
