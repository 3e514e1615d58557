"""A widened network has the same output, and what is new learns."""

from __future__ import annotations

import gc

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from tensorflow.python.framework.func_graph import FuncGraph

from conftest import new_trainer
from selfscale.decisions import INSERT_LAYER, WIDEN, Filter, GrowthStep
from selfscale.nn.compaction import compact, compacted
from selfscale.nn.fcn import build, calibrate, size
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.trainer import Plan
from selfscale.nn.widening import grown, hands_on_positive
from selfscale.search.growth_trials import candidates

PICTURES = np.random.default_rng(5).integers(256, size=(2, 20, 23, 1), dtype=np.uint8)
IMAGES = PICTURES / np.float32(255)


def of_layers(*layers: keras.layers.Layer) -> MaskedNetwork:
    inputs = keras.Input((None, None, 1))
    x = inputs
    for layer in layers:
        x = layer(x)
    return MaskedNetwork(keras.Model(inputs, x))


def output(network: MaskedNetwork) -> np.ndarray:
    return np.asarray(network.model(IMAGES, training=False))


@examples(max_examples=8, deadline=None)
@given(
    widths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    kernel=st.integers(1, 5),
    choices=st.lists(st.integers(0, 99), min_size=1, max_size=4),
    off=st.integers(0, 99),
    seed=st.integers(0, 99),
)
def test_a_grown_network_puts_out_the_same(widths, kernel, choices, off, seed):
    network = MaskedNetwork(build(widths, kernel=kernel, deviation=0.3, seed=(seed,)))
    removable = network.removable()
    if removable:
        network.disable(removable[off % len(removable)])
    expected = output(network)
    for choice in choices:
        found = candidates(network)
        larger = grown(network, found[choice % len(found)], PICTURES, np.random.default_rng(seed))
        assert size(larger.model).macs_per_pixel > size(network.model).macs_per_pixel
        assert sum(larger.filters_kept) == sum(network.filters_kept) + len(found[choice % len(found)].filters)
        network = larger
        np.testing.assert_allclose(output(network), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.asarray(compact(network)(IMAGES)), expected, rtol=1e-5, atol=1e-5)


def test_growth_goes_through_normalization_pooling_and_frozen_filters():
    conv, relu = keras.layers.Conv2D, keras.layers.ReLU
    network = of_layers(
        conv(3, 3, padding="same"), keras.layers.BatchNormalization(), relu(), keras.layers.MaxPooling2D(),
        conv(2, 3, padding="same", use_bias=False), keras.layers.BatchNormalization(), conv(1, 1),
    )  # fmt: skip
    network.freeze(Filter(0, 1), Filter(1, 0))
    assert [hands_on_positive(block) for block in network.blocks] == [True, False, False]
    expected = output(network)
    wider = grown(
        network, GrowthStep(WIDEN, (Filter(0, 3), Filter(0, 4))), PICTURES, np.random.default_rng(0)
    )
    deeper = grown(
        wider,
        GrowthStep(INSERT_LAYER, tuple(Filter(1, n) for n in range(5))),
        PICTURES,
        np.random.default_rng(0),
    )
    assert (wider.widths, deeper.widths) == ((5, 2), (5, 5, 2))
    assert wider.frozen() == [Filter(0, 1), Filter(1, 0)]
    assert deeper.frozen() == [Filter(0, 1), Filter(2, 0)]
    for network in (wider, deeper):
        np.testing.assert_allclose(output(network), expected, rtol=1e-5, atol=1e-5)


def test_nothing_is_inserted_where_values_may_be_negative():
    network = of_layers(keras.layers.Conv2D(2, 3, padding="same"), keras.layers.Conv2D(1, 3))
    assert [growth.alteration for growth in candidates(network)] == [WIDEN]
    assert [growth.layers for growth in candidates(network)] == [{0: 2}]
    with pytest.raises(ValueError, match="may be negative"):
        grown(
            network,
            GrowthStep(INSERT_LAYER, (Filter(1, 0), Filter(1, 1))),
            PICTURES,
            np.random.default_rng(0),
        )


def test_new_filters_are_not_silent_and_what_is_new_learns(train_split, validation_split):
    model = build([1, 2], kernel=3, deviation=0.3, seed=(3,))
    calibrate(model, train_split.images / np.float32(255), float(train_split.targets.mean()))
    trainer = new_trainer(train_split, validation_split, model)
    pictures = train_split.images / np.float32(255)
    for growth in candidates(trainer.network):
        larger = trainer.of(grown(trainer.network, growth, train_split.images, np.random.default_rng(0)))
        before = larger.network.state().weights
        for layer in growth.layers:
            features = np.asarray(larger.network.features(larger.network.position(layer) + 1)(pictures))
            assert (features != 0).any(axis=(0, 1, 2)).all()
        larger.session(Plan(30, 1), np.random.default_rng(0))
        for old, new in zip(before, larger.network.state().weights, strict=True):
            assert (old != new).any(), "some weights never moved"


def test_growing_and_shrinking_leave_nothing_behind(train_split, validation_split):
    trainer = new_trainer(train_split, validation_split)

    def round_trip(number: int, trained: bool) -> None:
        rng = np.random.default_rng(number)
        found = candidates(trainer.network)
        larger = trainer.of(grown(trainer.network, found[number % len(found)], train_split.images, rng))
        larger.network.disable(larger.network.removable()[-1])
        smaller = larger.of(compacted(larger.network))
        if trained:
            larger.session(Plan(1, 1), rng)
            smaller.session(Plan(1, 1), rng)

    def alive() -> int:
        gc.collect()
        kinds = keras.Model | keras.Variable | FuncGraph
        return sum(isinstance(thing, kinds) for thing in gc.get_objects())

    round_trip(0, trained=True)
    before = alive()
    for number in range(20):
        round_trip(number, trained=number < 3)  # each trace takes a second
    assert alive() <= before
