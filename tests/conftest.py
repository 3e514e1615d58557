from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Before NumPy is imported: the workers share the cores, and threads that wait for one take its time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import keras
import numpy as np
import pytest
from skimage.filters import gaussian, sobel

from selfscale.config import Execution, FirstSession, Training
from selfscale.nn import devices
from selfscale.nn.fcn import build, calibrate
from selfscale.nn.input_pipeline import Split
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.metrics import Evaluator
from selfscale.nn.trainer import Trainer
from selfscale.search.importance import STRATEGIES, Subject

# As each process of the pipeline does, and before anything else starts TensorFlow.
devices.configure(Execution())

TINY = Training(
    optimizer="adam",
    clip_norm=0.1,
    learning_rate=0.005,
    batch=4,
    crop=24,
    evaluations=2,
    first=FirstSession(starts=1, steps=60, max_cycles=4, min_gain=0.05, restarts=2),
)


def pictures(count: int, seed: int, side: int = 40) -> np.ndarray:
    """Blurred noise with edges: uint8 (count, side, side, 1)."""
    rng = np.random.default_rng(seed)
    smooth = [gaussian(rng.random((side, side)), 2.5) for _ in range(count)]
    images = np.stack([np.where(image > np.median(image), image + 0.3, image - 0.2) for image in smooth])
    return (np.clip(images, 0, 1) * 255).astype(np.uint8)[..., None]


def sobel_split(count: int, seed: int) -> Split:
    images = pictures(count, seed)
    return Split(
        images, np.stack([sobel(image / 255.0) for image in images[..., 0]])[..., None].astype("float16")
    )


@pytest.fixture(scope="session")
def train_split() -> Split:
    return sobel_split(12, seed=1)


@pytest.fixture(scope="session")
def validation_split() -> Split:
    return sobel_split(5, seed=2)


def bind(name: str, arguments: dict[str, Any]) -> Callable[[Subject], np.ndarray]:
    """A selection strategy with its arguments, as from `params.yaml`."""
    return STRATEGIES.bind(name, arguments, "strategies")


def new_trainer(
    train: Split, validation: Split, model: keras.Model | None = None, settings: Training = TINY
) -> Trainer:
    if model is None:
        model = build([3, 4], kernel=3, deviation=0.3, seed=(1,))
        calibrate(model, train.images / np.float32(255), float(train.targets.mean()), center=False)
    network = MaskedNetwork(model)
    evaluator = Evaluator(network.model, discrete=False)
    return Trainer(network, train, validation, loss="mae", settings=settings, evaluator=evaluator)


@pytest.fixture
def trainer(train_split: Split, validation_split: Split) -> Trainer:
    return new_trainer(train_split, validation_split)
