from __future__ import annotations

import numpy as np
import pytest

from selfscale.dataset import Split
from selfscale.probe import Probe
from selfscale.records import Filter


@pytest.fixture
def probe(trainer, train_split):
    """Eight images, which is one batch: so that averages over batches are plain ones."""
    eight = Split(train_split.images[:8], train_split.targets[:8])
    trainer.network.disable(Filter(0, 1))
    return Probe(trainer.network, eight, "mae")


def loss(trainer, probe) -> float:
    return trainer.evaluator(Split(probe._images, probe._targets), ("mae",)).score("mae")


def test_the_loss_without_each_is_that_of_switching_it_off(trainer, probe):
    candidates = trainer.network.removable()
    found = probe.losses_without(candidates)
    state = trainer.network.state()
    for candidate, value in zip(candidates, found, strict=True):
        trainer.network.disable(candidate)
        assert value == pytest.approx(loss(trainer, probe), rel=1e-5)
        trainer.network.restore(state)


def test_the_derivative_by_a_switch_is_that_of_finite_differences(trainer, probe):
    found = probe.gradients()
    for layer, index in trainer.network.removable():
        switch = trainer.network.switches[layer].active
        values, losses = switch.numpy(), []
        for change in (0.01, -0.01):
            shifted = values.copy()
            shifted[index] += change
            switch.assign(shifted)
            losses.append(loss(trainer, probe))
        switch.assign(values)
        assert found[layer][index] == pytest.approx(abs(losses[0] - losses[1]) / 0.02, rel=0.05, abs=1e-5)


def test_activations_and_zeros_of_the_first_layer_by_hand(trainer, probe):
    convolution = trainer.network.blocks[0].convolution
    hidden = np.array(convolution(probe._images / np.float32(255)))
    hidden[..., 1] = 0  # switched off
    np.testing.assert_allclose(probe.activations()[0], hidden.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(probe.zeros()[0], (hidden == 0).mean(axis=(0, 1, 2)), atol=1e-6)
