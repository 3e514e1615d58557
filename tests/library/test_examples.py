from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from selfscale.library.examples import Source, check_inputs, in_memory

X, Y = np.arange(20, dtype="float32").reshape(10, 2), np.arange(10)


class Sequence(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int):
        part = slice(4 * index, 4 * index + 4)
        return X[part], Y[part], np.ones(len(Y[part]))


class Endless(Sequence):
    @property
    def num_batches(self):
        return None


def model(*shape: int | None) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.Dense(1)(inputs))


@pytest.mark.parametrize(
    "data",
    [(X, Y, np.ones(10)), tf.data.Dataset.from_tensor_slices((X, Y, np.ones(10))).batch(4), Sequence()],
)
def test_all_kinds_give_the_same_examples(data):
    batches = in_memory(Source(data, "validation", batch_size=4))
    assert [len(batch.y) for batch in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([batch.x for batch in batches]), X)
    assert all(batch.weights is not None for batch in batches)


def test_an_epoch_of_training_has_every_example_once_in_an_order_from_the_seed():
    batches = Source((X, Y), "train", batch_size=4).endlessly(seed=1)
    epochs = [np.concatenate([next(batches).y for _ in range(3)]) for _ in range(2)]
    assert all(sorted(epoch) == sorted(Y) for epoch in epochs)
    assert list(epochs[0]) != list(epochs[1])
    later = Source((X, Y), "train", batch_size=4).endlessly(seed=1, skip=3)
    assert np.concatenate([next(later).y for _ in range(3)]).tolist() == epochs[1].tolist()


def test_nests_of_inputs_and_targets():
    data = ({"a": X, "b": X}, [Y, Y])
    (batch,) = in_memory(Source(data, "validation"))
    assert set(batch.x) == {"a", "b"} and len(batch.y) == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tf.data.Dataset.from_tensor_slices((X, Y)).batch(2).repeat(), "validation: has no end; give a part"),
        (Endless(), "validation: has no end"),
        (tf.data.Dataset.from_tensor_slices((X, Y)).take(0).batch(2), "validation: is empty"),
        (tf.data.Dataset.from_tensor_slices((X, Y)).batch(2).filter(lambda x, y: False), "is empty"),
        ((X[:0], Y[:0]), "validation: is empty"),
        ((X, Y[:4]), "validation: its arrays differ in their number of examples: 4, 10"),
        (X, "must be a tf.data.Dataset, arrays .* not a ndarray"),
        ("path", "not a str"),
        ((X.tolist(), Y), "validation: holds numbers that are in no array; use numpy.asarray"),
        (tf.data.Dataset.from_tensor_slices(X).batch(2), "each element must be .x, y. or"),
        ((X * np.nan, Y), "validation: holds NaN or infinite numbers"),
        (tf.data.Dataset.from_tensor_slices((X, 1 / (0 * X))).batch(2), "validation: holds NaN or infinite"),
    ],
)
def test_bad_data(data, message):
    with pytest.raises(ValueError, match=message):
        in_memory(Source(data, "validation"))


def test_training_data_that_yield_nothing_end_with_a_message():
    empty = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2).filter(lambda x, y: False)
    with pytest.raises(ValueError, match="train: is empty"):
        next(Source(empty, "train").endlessly(seed=0))


def test_inputs_are_held_against_the_model():
    unbatched = next(Source(tf.data.Dataset.from_tensor_slices((X, Y)), "validation").epoch())
    with pytest.raises(ValueError, match=r"validation: its examples are not batched; use validation.batch"):
        check_inputs(model(2), unbatched, "validation")
    batch = next(Source((X, Y), "validation").epoch())
    check_inputs(model(2), batch, "validation")
    with pytest.raises(ValueError, match=r"inputs are of shape \(10, 2\), but the model takes \(None, 3\)"):
        check_inputs(model(3), batch, "validation")
    with pytest.raises(ValueError, match="has 1 input, but the model has 2"):
        a, b = keras.Input((2,)), keras.Input((2,))
        check_inputs(keras.Model([a, b], keras.layers.add([a, b])), batch, "validation")


def test_dataset_of_training_goes_on_from_epoch_to_epoch():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)
    found = [batch.y.numpy()[0] for batch in itertools.islice(Source(dataset, "train").endlessly(0), 5)]
    assert found == [0, 5, 0, 5, 0]
