from __future__ import annotations

import numpy as np
import pytest

from networks import assert_equal, everything
from selfscale.decisions import Filter
from selfscale.nn.checkpoint import Checkpoint
from selfscale.nn.layer_removal import with_layers
from selfscale.nn.trainer import Plan, Trainer


def change_everything(trainer: Trainer) -> None:
    trainer.network.disable(Filter(1, 0))
    trainer.network.freeze(Filter(0, 1))
    trainer.session(Plan(10, 1), np.random.default_rng(9))


def test_reverting_is_exact_and_training_goes_on_the_same(trainer):
    trainer.network.disable(Filter(0, 2))
    trainer.session(Plan(10, 1), np.random.default_rng(1))
    checkpoint, before = Checkpoint.take(trainer), everything(trainer)
    trainer.session(Plan(10, 1), np.random.default_rng(2))
    after = everything(trainer)
    change_everything(trainer)
    checkpoint.restore(trainer)
    assert_equal(everything(trainer), before)
    trainer.session(Plan(10, 1), np.random.default_rng(2))
    assert_equal(everything(trainer), after)


def test_bytes_hold_all_of_it(trainer):
    trainer.network.disable(Filter(0, 2))
    trainer.session(Plan(10, 1), np.random.default_rng(1))
    before = everything(trainer)
    content = Checkpoint.take(trainer, decision=7, note="é").to_bytes()
    change_everything(trainer)
    loaded = Checkpoint.from_bytes(content)
    loaded.restore(trainer)
    assert_equal(everything(trainer), before)
    assert loaded.data == {"decision": 7, "note": "é"}
    assert loaded.to_bytes() == content


def test_many_rounds_leave_nothing_behind(trainer):
    """Variables and traces stay as many as they were, whatever is tried and undone."""
    trainer.session(Plan(2, 1), np.random.default_rng(0))
    variables = len(trainer.network.model.variables) + len(trainer.optimizer.variables)
    for number in range(100):
        checkpoint = Checkpoint.take(trainer)
        trainer.network.disable(trainer.network.removable()[number % 5])
        trainer.reset()
        trainer.session(Plan(2, 1), np.random.default_rng(number))
        checkpoint.restore(trainer)
    assert len(trainer.network.model.variables) + len(trainer.optimizer.variables) == variables
    assert trainer._steps.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_damaged_bytes_are_refused(content):
    with pytest.raises(ValueError, match="is not a snapshot, or is damaged"):
        Checkpoint.from_bytes(content)


def test_half_of_the_bytes_is_refused(trainer):
    content = Checkpoint.take(trainer).to_bytes()
    with pytest.raises(ValueError, match="damaged"):
        Checkpoint.from_bytes(content[: len(content) // 2])


def test_a_network_without_a_layer_survives(trainer):
    """Another process makes the same network from the initial one, and trains on alike."""
    smaller = trainer.of(with_layers(trainer.network, [1]))
    smaller.network.disable(Filter(1, 2))
    smaller.network.freeze(Filter(1, 0))
    smaller.session(Plan(6, 1), np.random.default_rng(1))
    loaded = Checkpoint.from_bytes(Checkpoint.take(smaller).to_bytes())
    assert loaded.network.layers == (1,)
    again = trainer.of(with_layers(trainer.network, loaded.network.layers))
    loaded.restore(again)
    assert_equal(everything(again), everything(smaller))
    for each in (smaller, again):
        each.session(Plan(6, 1), np.random.default_rng(2))
    assert_equal(everything(again), everything(smaller))


def test_a_checkpoint_of_other_layers_is_refused_and_changes_nothing(trainer):
    smaller = trainer.of(with_layers(trainer.network, [1]))
    for one, other in ((trainer, smaller), (smaller, trainer)):
        before = everything(one)
        with pytest.raises(ValueError, match="layers"):
            Checkpoint.take(other).restore(one)
        assert_equal(everything(one), before)
