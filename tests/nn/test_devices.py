"""Devices: settings of a process, XLA by measurement, half precision and its refusal."""

from __future__ import annotations

import logging
import subprocess
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from selfscale.config import Execution
from selfscale.errors import UserError
from selfscale.nn import devices
from selfscale.nn.fcn import build
from selfscale.nn.trainer import Plan, Trainer
from stores import python

CONFIGURED = """
import sys
import tensorflow as tf
from threadpoolctl import threadpool_info
from selfscale.nn import devices
from selfscale.config import (Execution)

threads, deterministic = int(sys.argv[1]), sys.argv[2] == "True"
print(devices.configure(Execution(threads=threads, deterministic=deterministic)))
tf.constant(0) + 1
try:
    tf.random.uniform(())  # without a seed
except RuntimeError:
    print("deterministic")
print(tf.config.threading.get_intra_op_parallelism_threads())
print(tf.config.threading.get_inter_op_parallelism_threads())
print(*{library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"})
"""


@pytest.mark.parametrize(
    ("threads", "deterministic", "lines"),
    [(1, True, "False deterministic 1 1 1"), (3, False, "False 3 0 3")],
)
def test_a_process_has_the_threads_and_the_determinism_of_the_settings(threads, deterministic, lines):
    command = python(CONFIGURED, str(threads), str(deterministic))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == lines.split()


@pytest.fixture
def untouched(monkeypatch):
    """Without changing the threads or the determinism of the process that runs the tests."""
    for name in ("set_intra_op_parallelism_threads", "set_inter_op_parallelism_threads"):
        monkeypatch.setattr(tf.config.threading, name, lambda number: None)
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)
    monkeypatch.setattr(devices, "threadpool_limits", lambda number: None)


@pytest.mark.parametrize(("asked", "warned"), [("0", True), ("0,1", True), ("-1", False), ("", False)])
def test_a_gpu_that_was_asked_for_but_is_not_there(monkeypatch, caplog, untouched, asked, warned):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", asked)
    monkeypatch.setattr(devices, "visible_gpus", list)
    with caplog.at_level(logging.WARNING):
        assert not devices.configure(Execution())
    assert [f"CUDA_VISIBLE_DEVICES={asked}: " in message for message in caplog.messages] == [True] * warned


def test_memory_of_each_gpu_grows(monkeypatch, untouched):
    grows = {}
    monkeypatch.setattr(devices, "visible_gpus", lambda: ["a", "b"])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", grows.__setitem__)
    assert devices.configure(Execution(mixed_precision=True))
    assert grows == {"a": True, "b": True}


def test_mixed_precision_is_refused_on_the_cpu(monkeypatch, untouched):
    monkeypatch.setattr(devices, "visible_gpus", list)
    with pytest.raises(UserError, match=r"^execution.mixed_precision: .* no GPU.*; set it to false$"):
        devices.configure(Execution(mixed_precision=True))


def test_a_batch_that_cannot_fit_is_refused(monkeypatch):
    monkeypatch.setattr(devices.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**30))
    devices.check_batch(8, 256, 200)  # 0.78 GiB
    with pytest.raises(UserError, match=r"^training.batch: 16 images of 256x256 take 1.6 GiB, but 1.0 GiB"):
        devices.check_batch(16, 256, 200)


def test_a_device_whose_memory_is_exhausted_is_one_line(trainer: Trainer, monkeypatch):
    def exhausted(*arguments: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(trainer, "_steps", exhausted)
    with pytest.raises(UserError, match=r"^training.batch: 4 images of 24x24 do not fit .*; lower training"):
        trainer.session(Plan(1, 1), np.random.default_rng(0))


def test_half_precision_is_that_of_what_is_traced_inside(trainer: Trainer):
    model = trainer.network.model
    images = tf.constant(trainer.train.images[:2] / np.float32(255))
    weights = [variable.numpy() for variable in model.variables]
    exact = model(images).numpy()
    with devices.half_precision(model):
        traced = tf.function(lambda x: model(x, training=True)).get_concrete_function(images)
    convolutions = [op for op in traced.graph.get_operations() if op.type == "Conv2D"]
    assert [op.inputs[0].dtype for op in convolutions] == [tf.float16, tf.float16, tf.float32]
    output = traced(images)
    assert output.dtype == tf.float32
    assert not np.array_equal(output, exact)
    assert np.allclose(output, exact, atol=1e-2)
    assert np.array_equal(model(images), exact)
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.variables, strict=True))
    assert {variable.dtype for variable in model.variables} == {"float32"}


def test_half_precision_that_changes_no_score_is_allowed(trainer: Trainer):
    devices.check_mixed_precision(trainer.network.model, trainer.evaluator, trainer.validation, "mae")


@pytest.mark.parametrize("beyond", [1e4, 1e38], ids=["beyond float16", "beyond float32"])
def test_half_precision_that_changes_a_score_is_refused(trainer: Trainer, beyond):
    model = build([2], kernel=3, deviation=0.3)
    hidden, output = (layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    hidden.set_weights([np.full(hidden.kernel.shape, beyond, np.float32), hidden.bias.numpy()])
    output.set_weights([np.full(output.kernel.shape, 1e-6, np.float32), output.bias.numpy()])
    with pytest.raises(UserError, match=r"^execution.mixed_precision: half .* more than 1 %"):
        devices.check_mixed_precision(model, trainer.evaluator, trainer.validation, "mae")
