"""How long networks take on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

SIDE = 1024  # pixels of the image
REPETITIONS = 5


def milliseconds(models: Sequence[keras.Model]) -> list[float]:
    """Measure what a megapixel takes each model, compiled: the median of several calls, in turns.

    In turns, so that whatever else slows the machine down slows all of them.
    """
    image = np.random.default_rng(0).random((1, SIDE, SIDE, 1), dtype=np.float32)
    calls = [tf.function(lambda images, model=model: model(images, training=False)) for model in models]
    for call in calls:
        call(image)
    seconds = np.empty((REPETITIONS, len(calls)))
    for row in seconds:
        for place, call in enumerate(calls):
            started = time.perf_counter()
            call(image).numpy()
            row[place] = time.perf_counter() - started
    return [float(median) for median in np.median(seconds, axis=0) * 1e9 / SIDE**2]
