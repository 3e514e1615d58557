from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import TINY, new_trainer
from selfscale.decisions import Filter
from selfscale.nn.fcn import build
from selfscale.nn.input_pipeline import Split
from selfscale.nn.optimizers import learning_rates
from selfscale.nn.trainer import Compilation, Plan


def test_a_session_learns_and_is_traced_once_whatever_is_masked(trainer):
    start = trainer.evaluate_loss()
    for number, filter in enumerate([None, Filter(0, 0), Filter(1, 1)]):
        if filter:
            trainer.network.disable(filter)
        trainer.reset()
        record, evaluation = trainer.session(Plan(40, 2), np.random.default_rng(number))
        assert record.ended == "completed"
        assert [step for step, _ in record.scores] == [20, 40]
        assert record.scores[-1][1] == evaluation.score("mae")
    assert evaluation.score("mae") < 0.7 * start
    assert trainer._steps.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("compilation", [Compilation(xla=True), Compilation(half=True)], ids=str)
def test_another_compilation_learns_alike(train_split, validation_split, compilation):
    scores = {}
    for chosen in (Compilation(), compilation):
        trainer = new_trainer(train_split, validation_split).of(compilation=chosen)
        trainer.session(Plan(40, 2), np.random.default_rng(0))
        scores[chosen] = trainer.evaluate_loss()
        assert {variable.dtype for variable in trainer.network.model.variables} == {"float32"}
    assert scores[compilation] == pytest.approx(scores[Compilation()], rel=0.02)


def test_half_precision_computes_the_hidden_layers_in_float16(trainer):
    for compilation, types in (
        (Compilation(), {tf.float32}),
        (Compilation(half=True), {tf.float16, tf.float32}),
    ):
        compiled = trainer.of(compilation=compilation)
        compiled.session(Plan(1, 1), np.random.default_rng(0))
        (traced,) = compiled._steps._list_all_concrete_functions()
        functions = traced.graph.as_graph_def().library.function
        nodes = [node for function in functions for node in function.node_def if node.op == "Conv2D"]
        assert {tf.as_dtype(node.attr["T"].type) for node in nodes} == types


def test_one_step_is_keras_own_adam_step(train_split, validation_split):
    """Against a plain Keras loop: gradient, clipping, Adam; with one image the crop does not matter."""
    one = Split(train_split.images[:1], train_split.targets[:1])
    model = build([3], kernel=3, seed=(5,))
    reference = keras.models.clone_model(model)
    reference.set_weights(model.get_weights())
    trainer = new_trainer(one, validation_split, model, TINY.model_copy(update={"crop": None, "batch": 1}))
    trainer.reset()
    trainer.session(Plan(3, 1), np.random.default_rng(0))

    adam = keras.optimizers.Adam(1.0, global_clipnorm=TINY.clip_norm)
    for rate in learning_rates(3, TINY.learning_rate, TINY.warmup):
        adam.learning_rate = float(rate)
        with tf.GradientTape() as tape:
            output = reference(one.images / np.float32(255), training=True)
            loss = tf.reduce_mean(tf.abs(output - one.targets.astype(np.float32)))
        gradients = tape.gradient(loss, [v.value for v in reference.trainable_variables])
        adam.apply_gradients(zip(gradients, reference.trainable_variables, strict=True))
    for ours, theirs in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_evaluation_changes_nothing(trainer):
    before = trainer.network.state()
    trainer.evaluator(trainer.validation)
    for old, new in zip(before.weights, trainer.network.state().weights, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", ["adam", "soap", "nadam", "adagrad"])  # the last two do not start at zero
def test_reset_makes_the_optimizer_as_new(name, train_split, validation_split):
    settings = TINY.model_copy(update={"optimizer": name})
    trainer = new_trainer(train_split, validation_split, settings=settings)
    fresh = [v.numpy().copy() for v in trainer.optimizer.variables]
    trainer.session(Plan(5, 1), np.random.default_rng(0))
    now = trainer.optimizer.variables
    assert not all(np.array_equal(v.numpy(), old) for v, old in zip(now, fresh, strict=True))
    trainer.reset()
    for variable, old in zip(now, fresh, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)


def test_a_dead_network_and_a_loss_that_is_no_number_end_the_session(train_split, validation_split):
    model = build([2], kernel=3)
    model.layers[-1].bias.assign([-100.0])
    record, _ = new_trainer(train_split, validation_split, model).session(
        Plan(20, 2), np.random.default_rng(0)
    )
    assert (record.ended, record.steps) == ("dead", 10)
    model.layers[-1].bias.assign([np.inf])
    record, _ = new_trainer(train_split, validation_split, model).session(
        Plan(20, 2), np.random.default_rng(0)
    )
    assert (record.ended, record.steps) == ("non-finite", 10)


def test_a_hopeless_session_ends_at_the_step_that_shows_it(trainer):
    rng = np.random.default_rng
    record, _ = trainer.session(Plan(30, 3), rng(0), hopeless={20: 1e-9})
    assert (record.ended, record.steps) == ("hopeless", 20)
    record, _ = trainer.session(Plan(30, 3), rng(0), hopeless={20: 1e9})
    assert (record.ended, record.steps) == ("completed", 30)


def test_the_same_seed_gives_the_same_weights(train_split, validation_split):
    weights = []
    for seed in (1, 1, 2):
        trainer = new_trainer(train_split, validation_split)
        trainer.session(Plan(20, 1), np.random.default_rng(seed))
        weights.append(np.concatenate([w.ravel() for w in trainer.network.model.get_weights()]))
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
