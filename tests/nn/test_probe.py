from __future__ import annotations

import keras
import numpy as np
import pytest

from conftest import new_trainer
from selfscale.decisions import Filter
from selfscale.nn.fcn import build
from selfscale.nn.input_pipeline import Split
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.probe import Probe


@pytest.fixture
def probe(trainer, train_split):
    """Eight images, which is one batch: so that averages over batches are plain ones."""
    eight = Split(train_split.images[:8], train_split.targets[:8])
    trainer.network.disable(Filter(0, 1))
    return Probe(trainer.network, eight, "mae")


def loss(trainer, probe) -> float:
    return trainer.evaluator(Split(probe.images, probe.targets), ("mae",)).score("mae")


def test_the_loss_without_each_is_that_of_switching_it_off(trainer, probe):
    candidates = trainer.network.removable()
    found = probe.losses_without(candidates)
    state = trainer.network.state()
    for candidate, value in zip(candidates, found, strict=True):
        trainer.network.disable(candidate)
        assert value == pytest.approx(loss(trainer, probe), rel=1e-5)
        trainer.network.restore(state)


def test_the_derivative_by_a_mask_is_that_of_finite_differences(trainer, probe):
    found = probe.gradients()
    for layer, index in trainer.network.removable():
        kernel = trainer.network.block(layer + 1).convolution.kernel  # a factor of what reads the filter
        values, losses = kernel.numpy(), []
        for change in (0.01, -0.01):
            shifted = values.copy()
            shifted[:, :, index] *= 1 + change
            kernel.assign(shifted)
            losses.append(loss(trainer, probe))
        kernel.assign(values)
        assert found[layer][index] == pytest.approx(abs(losses[0] - losses[1]) / 0.02, rel=0.05, abs=1e-5)


def test_activations_and_zeros_of_the_first_layer_by_hand(trainer, probe):
    convolution = trainer.network.blocks[0].convolution
    hidden = np.array(convolution(probe.images / np.float32(255)))
    hidden[..., 1] = 0  # switched off
    np.testing.assert_allclose(probe.activations()[0], hidden.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(probe.zeros()[0], (hidden == 0).mean(axis=(0, 1, 2)), atol=1e-6)


@pytest.fixture
def smaller(train_split, validation_split):
    """A trainer of the layers 0 and 2 of three, with all filters of the middle one gone."""
    network = MaskedNetwork(
        build([3, 2], kernel=3, mean=0.05, deviation=0.3, seed=(4,)), widths=[3, 4, 2], layers=[0, 2]
    )
    trainer = new_trainer(train_split, validation_split).of(network)
    network.disable(Filter(0, 2))
    return trainer


def test_measurements_go_by_the_initial_layers(smaller, train_split):
    eight = Split(train_split.images[:8], train_split.targets[:8])
    probe = Probe(smaller.network, eight, "mae")
    for measured in (probe.gradients(), probe.activations(), probe.zeros()):
        assert [len(layer) for layer in measured] == [3, 4, 2]
        assert not measured[1].any()
    first = np.array(smaller.network.block(0).convolution(eight.images / np.float32(255)))
    first[..., 2] = 0
    second = np.array(smaller.network.block(2).convolution(first))
    for layer, hidden in ((0, first), (2, second)):
        means, zeros = (np.mean(part, axis=(0, 1, 2)) for part in (hidden, hidden == 0))
        np.testing.assert_allclose(probe.activations()[layer], means, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(probe.zeros()[layer], zeros, atol=1e-6)
    candidates = [Filter(2, 1), Filter(0, 0)]  # in any order
    state = smaller.network.state()
    for candidate, value in zip(candidates, probe.losses_without(candidates), strict=True):
        smaller.network.disable(candidate)
        assert value == pytest.approx(loss(smaller, probe), rel=1e-5)
        smaller.network.restore(state)


def test_the_loss_without_the_last_filter_of_a_layer(smaller, train_split):
    """It stands for the layer; what is measured is the network with nothing coming out of the layer."""
    smaller.network.disable(Filter(2, 0))
    probe = Probe(smaller.network, train_split, "mae")
    (found,) = probe.losses_without([Filter(2, 1)])
    output = float(keras.ops.relu(smaller.network.block(3).convolution.bias)[0])
    targets = probe.targets[: len(probe.targets) // 8 * 8].astype("float64")
    assert found == pytest.approx(np.abs(output - targets).mean(), rel=1e-4)
