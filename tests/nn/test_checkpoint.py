from __future__ import annotations

import numpy as np
import pytest

from selfscale.errors import UserError
from selfscale.nn.checkpoint import Checkpoint
from selfscale.nn.layer_removal import with_layers
from selfscale.nn.trainer import Plan, Trainer
from selfscale.records import Filter


def everything(trainer: Trainer) -> list[np.ndarray]:
    state = trainer.network.state()
    adam = [v.numpy().copy() for v in trainer.optimizer.variables]
    return [*state.weights, *state.active, *state.trainable, *adam]


def assert_equal(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def change_everything(trainer: Trainer) -> None:
    trainer.network.disable(Filter(1, 0))
    trainer.network.freeze(Filter(0, 1))
    trainer.session(Plan(10, 1), np.random.default_rng(9))


def test_stepping_back_is_exact_and_training_goes_on_the_same(trainer):
    trainer.network.disable(Filter(0, 2))
    trainer.session(Plan(10, 1), np.random.default_rng(1))
    snapshot, before = Checkpoint.take(trainer), everything(trainer)
    trainer.session(Plan(10, 1), np.random.default_rng(2))
    after = everything(trainer)
    change_everything(trainer)
    snapshot.restore(trainer)
    assert_equal(everything(trainer), before)
    trainer.session(Plan(10, 1), np.random.default_rng(2))
    assert_equal(everything(trainer), after)


def test_a_snapshot_survives_the_disk(trainer, tmp_path):
    trainer.network.disable(Filter(0, 2))
    trainer.session(Plan(10, 1), np.random.default_rng(1))
    before = everything(trainer)
    path = tmp_path / "folder" / "snapshot.npz"
    Checkpoint.take(trainer, decision=7, note="é").save(path)
    change_everything(trainer)
    loaded = Checkpoint.load(path.rename(tmp_path / "moved.npz"))
    loaded.restore(trainer)
    assert_equal(everything(trainer), before)
    assert loaded.data == {"decision": 7, "note": "é"}
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["moved.npz"]  # no temporary file


def test_many_rounds_leave_nothing_behind(trainer):
    """Variables and traces stay as many as they were, whatever is tried and undone."""
    trainer.session(Plan(2, 1), np.random.default_rng(0))
    variables = len(trainer.network.graph.variables) + len(trainer.optimizer.variables)
    for number in range(100):
        snapshot = Checkpoint.take(trainer)
        trainer.network.disable(trainer.network.removable()[number % 5])
        trainer.reset()
        trainer.session(Plan(2, 1), np.random.default_rng(number))
        snapshot.restore(trainer)
    assert len(trainer.network.graph.variables) + len(trainer.optimizer.variables) == variables
    assert trainer._steps.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("content", [None, b"", b"not a snapshot", b"PK\x03\x04 cut"])
def test_a_missing_or_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "snapshot.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"snapshot\.npz"):
        Checkpoint.load(path)


def test_a_snapshot_without_a_layer_survives_the_disk(trainer, tmp_path):
    """Another process makes the same network from the initial one, and trains on alike."""
    smaller = trainer.of(with_layers(trainer.network, [1]))
    smaller.network.disable(Filter(1, 2))
    smaller.network.freeze(Filter(1, 0))
    smaller.session(Plan(6, 1), np.random.default_rng(1))
    Checkpoint.take(smaller).save(tmp_path / "snapshot.npz")
    loaded = Checkpoint.load(tmp_path / "snapshot.npz")
    assert loaded.network.layers == (1,)
    again = trainer.of(with_layers(trainer.network, loaded.network.layers))
    loaded.restore(again)
    assert_equal(everything(again), everything(smaller))
    for each in (smaller, again):
        each.session(Plan(6, 1), np.random.default_rng(2))
    assert_equal(everything(again), everything(smaller))


def test_a_snapshot_of_other_layers_is_refused_and_changes_nothing(trainer):
    smaller = trainer.of(with_layers(trainer.network, [1]))
    for one, other in ((trainer, smaller), (smaller, trainer)):
        before = everything(one)
        with pytest.raises(ValueError, match="layers"):
            Checkpoint.take(other).restore(one)
        assert_equal(everything(one), before)
