"""Disabled filters are cut out of the network in the middle of a search: nothing else changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checkpoint import assert_equal
from test_layer_removal import IMAGES, PICTURES, new_network

from conftest import bind, new_trainer
from selfscale.config import Acceptance, LayerRemoval, Limits, Minimization, Removal, Training
from selfscale.nn import redundancy
from selfscale.nn.checkpoint import Checkpoint
from selfscale.nn.compaction import compact, compacted, pays, removed_filters, with_filters
from selfscale.nn.fcn import build, filters_per_layer
from selfscale.nn.layer_removal import with_layers, without_layer
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.probe import Probe
from selfscale.nn.redundancy import Redundant
from selfscale.nn.trainer import Plan, Trainer
from selfscale.pipeline import resume
from selfscale.records import TRAIN, DecisionRecord, Filter
from selfscale.search import loop as minimization
from selfscale.search.loop import minimize


def drawn(widths: list[int], seed: int) -> tuple[MaskedNetwork, np.random.Generator]:
    """A network in which some filters are off."""
    network, rng = new_network(widths, seed), np.random.default_rng(seed)
    while rng.random() < 0.8 and (candidates := network.removable()):
        network.disable(candidates[rng.integers(len(candidates))])
    return network, rng


WIDTHS = st.lists(st.integers(1, 5), min_size=1, max_size=3)


@settings(max_examples=15, deadline=None)
@given(WIDTHS, st.integers(0, 1000))
def test_the_smaller_network_is_the_same_by_every_number(widths, seed):
    network, rng = drawn(widths, seed)
    kept = network.filters_kept
    smaller = compacted(network)
    assert filters_per_layer(smaller.model) == kept
    for _ in range(3):
        np.testing.assert_allclose(smaller.graph(IMAGES), network.graph(IMAGES), atol=1e-5)
        assert_equal(smaller.active, network.active)
        assert (smaller.filters_kept, smaller.size()) == (network.filters_kept, network.size())
        assert smaller.removable() == network.removable()
        np.testing.assert_array_equal(removed_filters(smaller), removed_filters(network))
        np.testing.assert_allclose(compact(smaller)(IMAGES), network.graph(IMAGES), atol=1e-5)
        first = smaller.filter_weights(0)
        np.testing.assert_array_equal(first[network.active[0]], network.filter_weights(0)[network.active[0]])
        if not (candidates := network.removable()):
            break
        filter = candidates[rng.integers(len(candidates))]
        for one in (network, smaller):
            one.disable(filter)


@settings(max_examples=10, deadline=None)
@given(WIDTHS, st.integers(0, 1000))
def test_strategies_measure_the_same(widths, seed):
    network, _ = drawn(widths, seed)
    split = new_trainer_split()
    one, other = (Probe(found, split, "mae") for found in (network, compacted(network)))
    candidates = network.removable()
    if candidates:
        np.testing.assert_allclose(
            other.losses_without(candidates), one.losses_without(candidates), rtol=1e-4
        )
    for measure in ("gradients", "activations", "zeros"):
        for a, b, active in zip(
            getattr(one, measure)(), getattr(other, measure)(), network.active, strict=True
        ):
            np.testing.assert_allclose(a[active], b[active], rtol=1e-3, atol=1e-6)
            assert not b[~active].any()


def new_trainer_split():
    from selfscale.nn.input_pipeline import Split

    return Split(PICTURES, (PICTURES / 255).astype(np.float16))


def test_what_is_frozen_stays_frozen_and_learns_nothing(train_split, validation_split):
    trainer = new_trainer(train_split, validation_split)
    trainer.network.disable(Filter(1, 1))
    trainer.network.freeze(Filter(0, 1), Filter(1, 2), Filter(2, 0))
    smaller = trainer.of(compacted(trainer.network))
    assert smaller.network.frozen() == [Filter(0, 1), Filter(1, 2), Filter(2, 0)]
    before = [smaller.network.filter_weights(layer) for layer in range(3)]
    smaller.session(Plan(4, 1), np.random.default_rng(0))
    after = [smaller.network.filter_weights(layer) for layer in range(3)]
    for layer, index in ((0, 1), (1, 2), (2, 0)):
        np.testing.assert_array_equal(before[layer][index], after[layer][index])
    assert (before[1][3] != after[1][3]).any()
    assert not after[1][1].any()
    smaller.network.unfreeze(Filter(1, 2))
    assert smaller.network.frozen() == [Filter(0, 1), Filter(2, 0)]


def test_filters_are_found_by_their_numbers():
    network = new_network([4, 3])
    network.disable(Filter(0, 1), Filter(1, 0))
    smaller = compacted(network)
    assert smaller.filters(0) == [Filter(0, 0), Filter(0, 2), Filter(0, 3)]
    weights = smaller.filter_weights(0)
    smaller.reinitialize(Filter(0, 2), np.random.default_rng(0))
    changed = (smaller.filter_weights(0) != weights).any(axis=1)
    assert changed.tolist() == [False, False, True, False]
    kernel = smaller.block(1).convolution.kernel.numpy()
    redundancy.merge(smaller, Redundant(Filter(0, 3), Filter(0, 2), 0.5))
    merged = smaller.block(1).convolution.kernel.numpy()
    np.testing.assert_allclose(merged[:, :, 1], kernel[:, :, 1] + 0.5 * kernel[:, :, 2], rtol=1e-6)
    with pytest.raises(ValueError, match="disabled already"):
        smaller.disable(Filter(0, 1))
    without = without_layer(
        smaller, 0, PICTURES, np.full(PICTURES.shape, 0.3, np.float16), 0, np.random.default_rng(0)
    )
    assert without.filters(1) == [Filter(1, 1), Filter(1, 2)]
    assert [int(active.sum()) for active in without.active] == [0, 2]


def test_a_state_is_restored_into_a_network_of_the_same_filters_only():
    network = new_network([3, 3])
    start = network.state()
    network.disable(Filter(0, 1))
    smaller = compacted(network)
    smaller.disable(Filter(1, 2))
    state = smaller.state()
    other = with_filters(new_network([3, 3], seed=7), state.layers, state.indices)
    other.restore(state)
    np.testing.assert_array_equal(other.graph(IMAGES), smaller.graph(IMAGES))
    assert_equal(other.active, smaller.active)
    for wrong, into in ((start, smaller), (state, network)):
        with pytest.raises(ValueError, match="other filters were removed"):
            into.restore(wrong)


def test_when_it_pays(train_split, validation_split):
    """Counted by hand: 3 passes, batches of 4 crops of 24x24, MACs/pixel 9 (3 + 12 + 4)."""
    trainer = new_trainer(train_split, validation_split)
    trainer.network.disable(Filter(0, 0))
    saved = 9 * (1 + 4)
    steps = round(1e11 / (3 * saved * 4 * 24 * 24))
    assert not pays(trainer, steps - 1)
    assert pays(trainer, steps + 1)


def test_the_thesis_network_is_never_worth_it_but_wide_ones_are(train_split, validation_split):
    steps = Minimization().removal.steps
    for widths, left, expected in (([5, 5], 1, False), ([16, 16], 8, True)):
        network = MaskedNetwork(build(widths))
        for layer, width in enumerate(widths):
            network.disable(*(Filter(layer, index) for index in range(left, width)))
        trainer = new_trainer(train_split, validation_split, settings=Training())
        large = dataclasses.replace(train_split, images=np.zeros((1, 256, 256, 1), np.uint8))
        trainer.network, trainer.train = network, large
        assert pays(trainer, steps) is expected


SHORT = Minimization(
    removal=Removal(group="adaptive", steps=6),
    layers=LayerRemoval(tries=1, steps=6),
    last_session_steps=6,
    tolerance=1e9,
    acceptance=Acceptance(rule="threshold"),
    limits=Limits(decisions=8, steps=None),
)


@pytest.fixture
def always(monkeypatch):
    """Filters are cut out as soon as there are any."""
    monkeypatch.setattr(
        minimization,
        "pays",
        lambda trainer, steps: (
            filters_per_layer(trainer.network.model)
            != tuple(kept for kept in trainer.network.filters_kept if kept)
        ),
    )


def new_start(train_split, validation_split) -> Trainer:
    trainer = new_trainer(train_split, validation_split)
    trainer.session(Plan(20, 1), np.random.default_rng(0))
    return trainer


@pytest.mark.parametrize("speculative", [1, 2])
@pytest.mark.parametrize("tries", [0, 1], ids=["filters", "layers, too"])
def test_a_search_goes_on_in_the_smaller_network(train_split, validation_split, always, tries, speculative):
    chosen = SHORT.model_copy(
        update={"layers": LayerRemoval(tries=tries, steps=6), "speculative": speculative}
    )
    trainer = new_start(train_split, validation_split)
    initial = trainer.evaluator(trainer.validation)
    widths, removed = [], []
    for record, _, kept, settled in minimize(trainer, bind("random", {}), chosen, seed=3, initial=initial):
        removed += record.filters if record.accepted else []
        if settled:
            assert kept.network.filters_kept == record.filters_kept
            assert (record.parameters, record.macs_per_pixel) == kept.network.size()
            widths.append(sum(filters_per_layer(kept.network.model)))
            assert widths[-1] == sum(record.filters_kept)  # cut out at once
    assert widths[-1] < 7 and len(set(widths)) > 2
    assert len(removed) == len(set(removed)) == 7 - widths[-1]
    end = kept.network
    assert removed_filters(end).sum() == len(removed)
    for layer, index in removed:
        assert not end.active[layer][index]


def test_interrupted_it_goes_on_in_the_smaller_network(train_split, validation_split, always, tmp_path: Path):
    first = new_start(train_split, validation_split)
    initial, start = first.evaluator(first.validation), Checkpoint.take(first)
    select = bind("random", {})
    whole = list(minimize(first, select, SHORT, seed=3, initial=initial))
    start.restore(first)
    trainer, history = first, list[DecisionRecord]()
    while not (history and history[-1].alteration == TRAIN):
        steps = minimize(trainer, select, SHORT, seed=3, initial=initial, history=history)
        decision = next(steps)
        steps.close()
        history.append(decision.record)
        resume.save(tmp_path / "state.npz", decision.trainer, "key", history)
        start.restore(first)
        trainer = resume.restore(resume.load(tmp_path / "state.npz"), first, tmp_path)
    for found, expected in zip(history, whole, strict=True):
        assert (found.filters, found.score) == (expected.record.filters, expected.record.score)
    assert_equal(trainer.network.state().weights, whole[-1].trainer.network.state().weights)


def test_layers_and_filters_go_together():
    network = new_network([3, 2, 3])
    network.disable(Filter(0, 0), Filter(2, 1))
    smaller = compacted(with_layers(network, (0, 2)))
    assert smaller.layers == (0, 2)
    assert [indices.tolist() for indices in smaller.indices] == [[1, 2], [0, 2]]
    assert smaller.filters_kept == (2, 0, 2)
