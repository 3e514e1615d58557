"""Processors and GPUs: what TensorFlow may use of them, XLA and half precision."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import psutil
import tensorflow as tf
from tensorflow.python.eager import context
from threadpoolctl import threadpool_limits

from selfscale.config import Execution
from selfscale.errors import UserError
from selfscale.nn import blocking
from selfscale.nn.input_pipeline import Split
from selfscale.nn.metrics import Evaluator

VARIABLE = "CUDA_VISIBLE_DEVICES"
HALF = "mixed_float16"
# How far half precision may move a score, relative to that in single precision.
ALLOWED = 0.01

log = logging.getLogger(__name__)


def configure(execution: Execution) -> bool:
    """Apply the settings to this process, before its first tensor.

    Operations run in `execution.threads` threads, and, if that is one, one after another. A GPU's memory
    is allocated as it is needed, so that processes can share it. Determinism can only be turned on.

    Returns:
        Whether the process uses a GPU.

    Raises:
        UserError: `execution.mixed_precision` is set, and there is no GPU.
        RuntimeError: TensorFlow has started with other settings already.
    """
    tf.config.threading.set_intra_op_parallelism_threads(execution.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1 if execution.threads == 1 else 0)
    # NumPy's linear algebra would take all cores: other sums, and slow where processes share them.
    threadpool_limits(execution.threads)
    blocking.allow(execution.blocks)
    gpus = visible_gpus()
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if problem := missing_gpu():
        log.warning("%s", problem)
    if execution.mixed_precision and not gpus:
        raise UserError(NO_GPU)
    if execution.deterministic:
        tf.config.experimental.enable_op_determinism()
    return bool(gpus)


NO_GPU = "execution.mixed_precision: TensorFlow sees no GPU, and no other device gains by it; set it to false"


def visible_gpus() -> list[Any]:
    return tf.config.list_physical_devices("GPU")


def missing_gpu() -> str | None:
    """Return a warning if CUDA_VISIBLE_DEVICES names a GPU, but TensorFlow sees none."""
    asked = os.environ.get(VARIABLE, "").strip()
    if asked in ("", "-1", "none", "NoDevFiles") or visible_gpus():
        return None
    return (
        f"{VARIABLE}={asked}: TensorFlow sees no GPU, so the CPU is used; check the driver with "
        "`nvidia-smi` and install the CUDA libraries with pip install 'selfscale[gpu]'"
    )


def check_batch(batch: int, side: int, channels: int) -> None:
    """Refuse a batch whose activations and gradients, of the channels of all layers, exceed the memory.

    Raises:
        UserError: They alone, in float32, take more than is free.
    """
    needed, free = 2 * 4 * batch * side**2 * channels, psutil.virtual_memory().available
    if needed > free:
        raise UserError(
            f"training.batch: {batch} images of {side}x{side} take {needed / 2**30:.1f} GiB, but "
            f"{free / 2**30:.1f} GiB of memory are free; lower training.batch or training.crop"
        )


@contextmanager
def half_precision(model: keras.Model) -> Iterator[None]:
    """Trace a chain in float16 inside this context, all but its last layer; weights stay float32.

    For the training step alone: evaluation, export and files stay in single precision. The last layer
    does, too, so that losses are computed from float32.
    """
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)][:-1]
    before = [layer.dtype_policy for layer in layers]
    for layer in layers:
        layer.dtype_policy = keras.DTypePolicy(HALF)
    try:
        yield
    finally:
        for layer, policy in zip(layers, before, strict=True):
            layer.dtype_policy = policy


def check_mixed_precision(model: keras.Model, evaluator: Evaluator, validation: Split, loss: str) -> None:
    """Refuse half precision where it changes the validation loss by more than 1 %.

    Raises:
        UserError: It does.
    """
    single = evaluator.of(model)(validation, (loss,)).score(loss)
    with half_precision(model):
        half = evaluator.of(model)(validation, (loss,)).score(loss)
    if not abs(half - single) <= ALLOWED * abs(single):  # also where half is not a number
        raise UserError(
            f"execution.mixed_precision: half precision changes the validation {loss} from {single:.5g} to "
            f"{half:.5g}, more than 1 %; set it to false"
        )


def forget_kernels() -> None:
    """Free the kernels that TensorFlow caches of all functions ever called: half a megabyte a network.

    Functions that are called again get theirs again, in a moment and with the same results.
    """
    context.context().clear_kernel_cache()
