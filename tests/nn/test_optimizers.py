from __future__ import annotations

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import TINY, new_trainer
from selfscale.errors import UserError
from selfscale.nn.fcn import build
from selfscale.nn.optimizers import CLIPPING, create, known, learning_rates
from selfscale.nn.soap import SOAP
from selfscale.nn.trainer import Plan

RATE, STEPS = 0.01, 20
OPTIONS = {"beta_1": 0.8, "beta_2": 0.9, "shampoo_beta": 0.85, "precondition_frequency": 5}
SHAPES = [(6, 6), (12, 4), (4, 12), (3, 3, 2, 4), (2, 3, 2, 1, 3), (1, 7), (6, 1)]


def variable(shape: tuple[int, ...], seed: int = 0) -> keras.Variable:
    return keras.Variable(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def gradients_of(shape: tuple[int, ...], steps: int = STEPS) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(steps, *shape)).astype(np.float32)


def run(optimizer: keras.optimizers.Optimizer, target: keras.Variable, gradients: np.ndarray) -> np.ndarray:
    """The variable's values after every step."""
    values = []
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)], [target])
        values.append(target.numpy())
    return np.stack(values)


def bases(optimizer: SOAP) -> list[np.ndarray | None]:
    """The bases of rows and columns of an optimizer's only variable."""
    found = {v.name[-1]: v.numpy().astype(np.float64) for v in optimizer.variables if "_basis_" in v.name}
    return [found.get(axis) for axis in "01"]


def published(start: np.ndarray, gradients: np.ndarray, first: list[np.ndarray | None]) -> np.ndarray:
    """The authors' implementation in NumPy: float64, moments kept in the eigenbasis.

    The eigenvectors of the first preconditioners are given: where these are singular, any would do.
    """
    shape, matrix = start.shape, (-1, start.shape[-1])
    weights, (left, right) = start.astype(np.float64).reshape(matrix), first
    mean, square, outers, values = 0.0, 0.0, [0.0, 0.0], []
    b1, b2, b3 = (OPTIONS[name] for name in ("beta_1", "beta_2", "shampoo_beta"))

    def turn(x, a, b):
        x = x if a is None else a @ x
        return x if b is None else x @ b

    def transposed(q):
        return None if q is None else q.T

    for step, gradient in enumerate(gradients.astype(np.float64)):
        g = gradient.reshape(matrix)
        if step > 0:
            projected = turn(g, transposed(left), right)
            mean = b1 * mean + (1 - b1) * projected
            square = b2 * square + (1 - b2) * projected**2
            rate = RATE * np.sqrt(1 - b2**step) / (1 - b1**step)
            weights = weights - rate * turn(mean / (np.sqrt(square) + 1e-8), left, transposed(right))
        outers = [b3 * outers[0] + (1 - b3) * g @ g.T, b3 * outers[1] + (1 - b3) * g.T @ g]
        if step > 0 and step % OPTIONS["precondition_frequency"] == 0:
            mean = turn(mean, left, transposed(right))
            new = []
            for axis, (outer, q) in enumerate(zip(outers, (left, right), strict=True)):
                if q is not None:
                    order = np.argsort(-np.diag(q.T @ outer @ q))
                    square = np.take(square, order, axis)
                    q = np.linalg.qr(outer @ q[:, order])[0]
                new.append(q)
            left, right = new
            mean = turn(mean, transposed(left), right)
        values.append(weights.reshape(shape))
    return np.stack(values)


# -- the algorithm -------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [512, 10], ids=["all sides", "small sides only"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_steps_are_those_of_the_published_algorithm(shape, limit):
    target, gradients = variable(shape), gradients_of(shape)
    start, optimizer = target.numpy(), SOAP(RATE, max_dimension=limit, **OPTIONS)
    values = run(optimizer, target, gradients[:1])
    np.testing.assert_array_equal(values[0], start)  # the first step only makes the basis
    first = bases(optimizer)
    rows = int(np.prod(shape[:-1]))
    assert [q is not None for q in first] == [1 < rows <= limit, 1 < shape[-1] <= limit]
    g = gradients[0].reshape(rows, -1).astype(np.float64)
    for q, outer in zip(first, (g @ g.T, g.T @ g), strict=True):
        if q is not None:
            np.testing.assert_allclose(q.T @ q, np.eye(len(q)), atol=1e-5)
            values = np.linalg.eigvalsh(outer)[::-1]
            np.testing.assert_allclose(q.T @ outer @ q, np.diag(values), atol=1e-5 * values[0])

    values = run(optimizer, target, gradients[1:])
    expected = published(start, gradients, first)[1:]
    assert np.abs(values - expected).max() < 0.01 * RATE
    assert np.abs(values[-1] - start).max() > 3 * RATE


@pytest.mark.parametrize(("shape", "limit"), [((7,), 512), ((1, 1), 512), ((40, 30), 20), ((), 512)], ids=str)
def test_what_has_no_preconditioner_is_updated_by_adam(shape, limit):
    ours, theirs, gradients = variable(shape), variable(shape), gradients_of(shape)
    values = run(SOAP(RATE, max_dimension=limit, **OPTIONS), ours, gradients)
    adam = keras.optimizers.Adam(RATE, beta_1=0.8, beta_2=0.9, epsilon=1e-8)
    np.testing.assert_allclose(values, run(adam, theirs, gradients), rtol=1e-6, atol=1e-7)


def test_it_turns_with_the_coordinates_where_adam_does_not():
    """The steps do not depend on the coordinates, as long as the first preconditioners have full rank."""
    q = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0].astype(np.float32)
    differences = {}
    for name in ("soap", "adam"):
        plain, turned = variable((6, 6)), variable((6, 6))
        turned.assign(q @ plain.numpy())
        gradients = gradients_of((6, 6))
        a = run(create(name, learning_rate=RATE), plain, gradients)
        b = run(create(name, learning_rate=RATE), turned, q @ gradients)
        differences[name] = np.abs(q @ a - b).max()
    assert differences["soap"] < 0.02 * RATE < RATE < differences["adam"]


def test_it_beats_adam_on_an_ill_conditioned_quadratic():
    rng = np.random.default_rng(3)
    left, right = (np.linalg.qr(rng.normal(size=(8, 8)))[0] for _ in range(2))
    a = tf.constant(left * np.geomspace(1, 1e-3, 8) @ left.T, tf.float32)
    b = tf.constant(right * np.geomspace(1, 1e-3, 8) @ right.T, tf.float32)
    reached = {}
    for name in ("soap", "adam"):
        for rate in (0.1, 0.03, 0.01):
            target = variable((8, 8))
            optimizer = create(name, learning_rate=rate)
            for step in range(300):
                optimizer.learning_rate.assign(rate * (1 - step / 300))
                optimizer.apply([a @ target.value @ b], [target])
            loss = float(tf.reduce_sum(target.value * (a @ target.value @ b)))
            reached[name] = min(loss, reached.get(name, np.inf))
    assert reached["soap"] < 0.1 * reached["adam"]


def test_zero_gradients_and_gradients_that_are_no_numbers():
    target = variable((6, 4))
    still = run(SOAP(RATE), target, np.zeros((7, 6, 4)))
    np.testing.assert_array_equal(still, np.broadcast_to(still[0], still.shape))
    for bad in (np.nan, np.inf):
        gradients = gradients_of((6, 4), 12)
        gradients[[0, 3]] = bad  # also where the basis is computed
        assert np.isnan(run(SOAP(RATE), variable((6, 4)), gradients)[-1]).all()


# -- as an optimizer of Keras --------------------------------------------------------------------


def fitted(optimizer, epochs: int = 3, model: keras.Model | None = None) -> keras.Model:
    rng = np.random.default_rng(0)
    model = model or build([3, 2], kernel=3, deviation=0.3, seed=(4,))
    images = rng.random((16, 12, 12, 1), dtype=np.float32)
    if optimizer is not None:
        model.compile(optimizer=optimizer, loss="mae")
    model.fit(images, 0.5 * images, batch_size=4, epochs=epochs, shuffle=False, verbose=0)
    return model


def assert_same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_is_the_same_after_serialization():
    optimizer = SOAP(
        keras.optimizers.schedules.ExponentialDecay(0.02, 10, 0.9),
        **OPTIONS,
        epsilon=1e-6,
        max_dimension=77,
        weight_decay=0.1,
        global_clipnorm=0.5,
        use_ema=True,
        ema_overwrite_frequency=3,
        name="mine",
    )
    again = keras.optimizers.deserialize(
        keras.optimizers.serialize(optimizer), custom_objects={"SOAP": type(optimizer)}
    )
    assert type(again) is SOAP
    config = again.get_config()
    assert config == optimizer.get_config()
    assert {**OPTIONS, "epsilon": 1e-6, "max_dimension": 77, "weight_decay": 0.1, "name": "mine"}.items() <= (
        config.items()
    )
    assert_same(fitted(optimizer).get_weights(), fitted(again).get_weights())


def test_a_saved_model_is_trained_on_as_if_it_had_not_been_saved(tmp_path):
    whole = fitted(SOAP(RATE), epochs=4)
    half = fitted(SOAP(RATE), epochs=2)
    half.save(tmp_path / "model.keras")
    assert_same(
        whole.get_weights(),
        fitted(
            None,
            epochs=2,
            model=keras.models.load_model(tmp_path / "model.keras", custom_objects={"SOAP": SOAP}),
        ).get_weights(),
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"weight_decay": 0.1},
        {"clipnorm": 0.01},
        {"use_ema": True},
        {"gradient_accumulation_steps": 2},
    ],
    ids=str,
)
def test_arguments_of_the_base_class_have_their_effect(arguments):
    plain, other = (fitted(SOAP(RATE, **chosen)).get_weights()[0] for chosen in ({}, arguments))
    assert np.isfinite(other).all()
    assert not np.array_equal(plain, other)


def test_accumulated_gradients_are_one_step():
    gradients = gradients_of((6, 4), 16)
    summed = run(SOAP(RATE, gradient_accumulation_steps=2), variable((6, 4)), gradients)
    means = run(SOAP(RATE), variable((6, 4)), gradients.reshape(8, 2, 6, 4).mean(axis=1))
    np.testing.assert_allclose(summed[1::2], means, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "XLA"])
def test_a_loop_in_a_compiled_function_takes_the_same_steps(compiled):
    target, gradients = variable((3, 3, 2, 4)), gradients_of((3, 3, 2, 4))
    optimizer = SOAP(1.0, **OPTIONS)
    optimizer.build([target])

    @tf.function(jit_compile=compiled)
    def loop(rates):
        for step in tf.range(tf.shape(rates)[0]):
            optimizer.learning_rate.assign(rates[step])
            optimizer.apply([tf.constant(gradients)[step]], [target])

    loop(tf.fill([STEPS], RATE))
    assert loop.experimental_get_tracing_count() == 1
    assert optimizer.iterations == STEPS
    if compiled:  # it may choose other vectors for a basis that is not determined
        assert np.isfinite(target.numpy()).all()
        return
    expected = run(SOAP(RATE, **OPTIONS), variable((3, 3, 2, 4)), gradients)[-1]
    np.testing.assert_allclose(target.numpy(), expected, atol=1e-5)


# -- in training sessions ------------------------------------------------------------------------


def with_soap(train_split, validation_split):
    settings = TINY.model_copy(update={"optimizer": "soap"})
    return new_trainer(train_split, validation_split, settings=settings)


def test_a_reset_leaves_nothing_and_the_same_seed_gives_the_same_weights(train_split, validation_split):
    trainer = with_soap(train_split, validation_split)
    start, weights = trainer.network.state(), []
    for restored in (True, True, False):
        trainer.session(Plan(23, 1), np.random.default_rng(0))
        weights.append(trainer.network.state().weights)
        if restored:
            trainer.reset()
        trainer.network.restore(start)
    fresh = with_soap(train_split, validation_split)
    fresh.session(Plan(23, 1), np.random.default_rng(0))
    for other in (weights[1], weights[2], fresh.network.state().weights):
        assert_same(weights[0], other)
    trainer.session(Plan(23, 1), np.random.default_rng(0))  # not reset: the old basis
    assert not np.array_equal(trainer.network.state().weights[0], weights[0][0])


def test_it_learns_faster_than_adam(train_split, validation_split):
    scores = []
    for trainer in (new_trainer(train_split, validation_split), with_soap(train_split, validation_split)):
        trainer.session(Plan(150, 1, 0.02), np.random.default_rng(0))
        scores.append(trainer.evaluate_loss())
    assert scores[1] < scores[0]


@pytest.mark.parametrize("name", ["soap", "adam", "nadam"])
def test_a_traced_step_is_forgotten(name):
    def traced() -> weakref.ref:
        target = variable((4, 4))
        optimizer = create(name)
        optimizer.build([target])
        step = tf.function(lambda: optimizer.apply([target.value * 1.0], [target]))
        step()
        return weakref.ref(step.get_concrete_function().graph)

    graph = traced()
    gc.collect()
    assert graph() is None


# -- by name -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(known()))
def test_every_optimizer_takes_steps(name):
    target = variable((3, 3, 1, 2))
    optimizer = create(name.upper(), learning_rate=0.1, clip_norm=0.5)
    before = target.numpy()
    run(optimizer, target, gradients_of((3, 3, 1, 2), 3))
    assert optimizer.global_clipnorm == 0.5
    assert not np.array_equal(before, target.numpy())


def test_it_is_keras_own_with_its_arguments():
    optimizer = create("SGD", {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1}, learning_rate=0.25)
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.5, True, 0.1)
    assert float(optimizer.learning_rate) == 0.25
    assert optimizer.global_clipnorm is None
    ours, theirs, gradients = variable((4, 3)), variable((4, 3)), gradients_of((4, 3))
    reference = keras.optimizers.SGD(0.25, momentum=0.5, nesterov=True, weight_decay=0.1)
    np.testing.assert_array_equal(run(optimizer, ours, gradients), run(reference, theirs, gradients))


@pytest.mark.parametrize("clipping", CLIPPING)
def test_clipping_chosen_by_argument_takes_the_place_of_the_general_one(clipping):
    optimizer = create("soap", {clipping: 0.7}, clip_norm=0.1)
    assert {name: getattr(optimizer, name) for name in CLIPPING if getattr(optimizer, name)} == {
        clipping: 0.7
    }


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("sopa", {}, r"'sopa' is unknown; did you mean 'soap'\? valid: adadelta, .* soap$"),
        ("Optimizer", {}, "'Optimizer' is unknown"),
        ("soap", {"beta1": 0.9}, "'beta1' is unknown; did you mean 'beta_1'"),
        ("adam", {"max_dimension": 9}, "'max_dimension' is unknown"),
        ("sgd", {"self": 1}, "'self' is unknown"),
        ("soap", {"learning_rate": 0.1}, "'learning_rate' is not an argument of the optimizer"),
        ("soap", {"beta_1": "0.9"}, "'beta_1' must be a number, not '0.9'"),
        ("soap", {"beta_1": None}, "'beta_1' must be a number, not None"),
        ("adam", {"epsilon": float("nan")}, "'epsilon' must be a number, not nan"),
        ("adam", {"weight_decay": "1e-3"}, "'weight_decay' must be a number, not '1e-3'"),
        ("soap", {"precondition_frequency": 2.5}, "'precondition_frequency' must be a whole number, not 2.5"),
        ("adam", {"amsgrad": 1}, "'amsgrad' must be true or false, not 1"),
        ("soap", {"beta_2": 1.0}, "SOAP: beta_2 must be at least 0 and less than 1, not 1.0"),
        ("soap", {"epsilon": 0}, "SOAP: epsilon must be greater than 0, not 0"),
        ("soap", {"precondition_frequency": 0}, "SOAP: precondition_frequency must be at least 1, not 0"),
        ("soap", {"max_dimension": -1}, "SOAP: max_dimension must be at least 0, not -1"),
        ("adam", {"clipnorm": 1.0, "clipvalue": 1.0}, "Adam: Only one of `clipnorm`"),
    ],
)
def test_bad_names_and_arguments_are_one_clear_line(name, arguments, message):
    with pytest.raises(UserError, match=f"^tasks.optimizer: {message}") as error:
        create(name, arguments, where="tasks.optimizer")
    assert "\n" not in str(error.value)


def test_learning_rates_rise_linearly_and_decay_to_zero():
    rates = learning_rates(100, 0.01, 0.1)
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) * 0.001, rtol=1e-5)
    assert rates.argmax() == 9
    assert np.all(np.diff(rates[9:]) < 0)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert rates[54] == pytest.approx(0.005, rel=1e-2)  # the cosine's middle


def test_learning_rates_stay_at_the_peak_on_a_plateau():
    rates = learning_rates(100, 0.01, 0.1, plateau=0.5)
    np.testing.assert_array_equal(rates[9:55], np.float32(0.01))
    np.testing.assert_array_equal(rates[:10], learning_rates(100, 0.01, 0.1)[:10])
    assert np.all(np.diff(rates[54:]) < 0) and rates[-1] == pytest.approx(0, abs=1e-9)
    assert rates[54:].mean() == pytest.approx(0.005, rel=0.05)
