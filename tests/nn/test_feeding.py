"""Crops that are cut on the device are those that NumPy cuts, and train the same network."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from conftest import new_trainer
from selfscale.nn import feeding
from selfscale.nn.blocking import Chain
from selfscale.nn.fcn import build
from selfscale.nn.feeding import Resident, Streamed, feed_for
from selfscale.nn.input_pipeline import Split
from selfscale.nn.trainer import Plan, Trainer

CPU = "CPU:0"


def split(height: int = 20, width: int = 31, dtype: str = "float16") -> Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, height, width, 1), dtype=np.uint8)
    return Split(images, rng.integers(0, 2, images.shape).astype(dtype))


@pytest.mark.parametrize("crop", [None, 1, 8, 25, 64])
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_both_feeds_give_the_same_crops(crop, dtype):
    data, shape = split(dtype=dtype), (3, 5)
    here, there = Streamed(data, crop), Resident(data, crop, CPU)
    ours, others = (feed.chunk(shape, np.random.default_rng(4)) for feed in (here, there))
    for feed, chunk in ((here, ours), (there, others)):
        assert [spec.is_compatible_with(part) for spec, part in zip(feed.signature, chunk, strict=True)]
    chain = Chain(build([5]), ours[0].shape[2:4])
    assert (chain.shape == (2, 2)) == (crop == 8)
    batches = here.batches(ours, chain), there.batches(others, chain)
    for step in range(shape[0]):
        for right, cut in zip(*(batch(step) for batch in batches), strict=True):
            np.testing.assert_array_equal(right, cut)
            assert right.dtype == cut.dtype


def test_both_train_the_same_network(train_split, validation_split):
    weights = []
    for feed in (Streamed(train_split, 16), Resident(train_split, 16, CPU)):
        known = new_trainer(train_split, validation_split)
        trainer = Trainer(
            known.network,
            known.train,
            known.validation,
            loss=known.loss,
            settings=known.settings.model_copy(update={"crop": 16}),
            evaluator=known.evaluator,
            feed=feed,
        )
        record, _ = trainer.session(Plan(40, 2), np.random.default_rng(3))
        assert record.losses[-1][1] < record.losses[0][1]
        assert trainer.of().feed is feed
        weights.append([weight.numpy() for weight in known.network.model.weights])
    for right, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(right, other)


def test_the_disk_is_read_without_a_gpu_or_without_room_on_it(monkeypatch):
    data = split()
    assert isinstance(feed_for(data, 8, None), Streamed)
    assert isinstance(feed_for(data, 8, CPU), Resident)

    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

    monkeypatch.setattr(feeding.tf, "zeros", full)
    assert isinstance(feed_for(data, 8, CPU), Streamed)
