"""The compact network's speed: against the initial one, and against scikit-image's own operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from rows import TASK, Row, in_turns, seconds, settings
from skimage import filters

from selfscale import files
from selfscale.nn.block_shape import best_shape
from selfscale.nn.blocked_model import blocked_model
from selfscale.nn.blocking import Chain
from selfscale.nn.fcn import blocks, size
from selfscale.paths import Job
from selfscale.pipeline.compare import jobs

REPETITIONS = 5
SIDE = 1024


def measure() -> Iterator[Row]:
    job = next(job for job in jobs(settings()) if job.task == TASK)
    initial = files.load_model(job.training.output / "initial.keras", job.training.command)
    compact = files.load_model(job.output / "compact.keras", job.command)
    image = np.random.default_rng(0).random((1, SIDE, SIDE, 1), dtype=np.float32)
    share = size(compact).macs_per_pixel / size(initial).macs_per_pixel
    small, large, operator = in_turns(
        REPETITIONS,
        timed(on_blocks(compact), image),
        timed(by_keras(initial), image),
        lambda: seconds(lambda: filters.sobel(image[0, ..., 0])),
    )
    yield from against_initial("on blocks of pixels", small, large, share, job)
    yield Row(
        f"inference on {SIDE}x{SIDE}, the compact network on blocks; scikit-image's sobel",
        "s",
        small,
        operator,
        "one image, one thread each; as `selfscale apply` runs it",
        at_most=1,
    )
    fast = blocked_model(compact, best_shape(blocks(compact), (SIDE, SIDE)))
    small, large = in_turns(REPETITIONS, timed(by_tflite(fast), image), timed(by_tflite(initial), image))
    yield from against_initial("TFLite with one thread (`export --fast`)", small, large, share, job)


def against_initial(
    how: str, small: list[float], large: list[float], share: float, job: Job
) -> Iterator[Row]:
    """`share`: the multiply-accumulates of the compact network over those of the initial one."""
    yield Row(
        f"inference on {SIDE}x{SIDE}, {how}, the compact network; the initial one",
        "s",
        small,
        large,
        f"{Path(job.output).name}: {share:.2f} of the multiply-accumulates",
        # Within 0.7 of the ratio of multiply-accumulates: at least 0.7 of the gain that it promises.
        at_most=share / 0.7,
    )


def timed(run: Callable[[np.ndarray], object], image: np.ndarray) -> Callable[[], float]:
    return lambda: seconds(lambda: run(image))


def by_keras(model: keras.Model) -> Callable[[np.ndarray], object]:
    compiled = tf.function(lambda image: model(image, training=False))
    return lambda image: compiled(tf.constant(image)).numpy()


def on_blocks(model: keras.Model) -> Callable[[np.ndarray], object]:
    compiled = tf.function(Chain(model).on_images, autograph=False)
    return lambda image: compiled(tf.constant(image)).numpy()


def by_tflite(model: keras.Model) -> Callable[[np.ndarray], object]:
    fixed = keras.Sequential([keras.Input((SIDE, SIDE, 1), batch_size=1), model])
    content = tf.lite.TFLiteConverter.from_keras_model(fixed).convert()
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    entry, end = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(entry, image)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(end))

    return run
