"""Which channels a share of the cost goes with, without any training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from selfscale.library.candidates import Candidates
from selfscale.library.cost import CostMeter
from selfscale.library.examples import Source
from selfscale.library.network import Network
from selfscale.library.options import task_of
from selfscale.search.channel_importance import CHANNEL_STRATEGIES

X, Y = np.random.default_rng(0).random((32, 6, 6, 1)).astype("float32"), np.zeros((32, 1), "float32")


@pytest.fixture(scope="module")
def network() -> Network:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(2, 3, name="first")(inputs)
    x = layers.Conv2D(12, 3, name="second")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(20, 1, name="third")(x))
    model = keras.Model(inputs, layers.Dense(1)(x))
    model.compile("sgd", "mse")
    given: Any = SimpleNamespace(model=model, loss=None, optimizer=None, metric="loss", direction=None)
    return Network(model, task_of(given, [*Source((X, Y), "validation", 32).epoch(np.random.default_rng(0))]))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("strategy", ["taylor", "magnitude"])
def test_a_share_is_one_of_the_real_cost_and_nothing_is_removed_by_choosing(network, share, strategy):
    plan: Any = SimpleNamespace(
        strategy=CHANNEL_STRATEGIES.resolve(strategy, ""), protect=(), seed=0, round_to=1
    )
    meter = CostMeter("macs")
    candidates = Candidates(plan, Source((X, Y), "train", 8), meter, network, 1)
    before, keep = network.masks.state(), network.keep
    for _ in range(2):  # also after all but one channel of a group were chosen
        proposal = candidates.channels("all", candidates.groups, share)
    assert proposal is not None
    for name, mask in network.keep.items():
        np.testing.assert_array_equal(mask, keep[name])
    for one, other in zip(before.weights, network.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    network.disable(proposal.channels)
    saved = candidates.cost - meter.size_of(network).cost
    network.masks.restore(before)
    assert saved == proposal.saving == pytest.approx(share * candidates.cost, abs=0.1 * candidates.cost)
