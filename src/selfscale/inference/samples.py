"""Sample images to try a network on: prepared ones if there are any, else synthetic ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfscale.data.prepare import load_split
from selfscale.errors import UserError
from selfscale.files import map_array, read_json
from selfscale.inference.export import Function
from selfscale.nn.input_pipeline import spread
from selfscale.nn.losses import LOSSES, ratio
from selfscale.paths import PREPARED, TARGETS
from selfscale.schemas import SplitName, Targets

SIDE = 256
SCORED = 32  # images


def images(split: SplitName, count: int) -> tuple[Sequence[NDArray[np.uint8]], str]:
    """Return at most `count` images, uint8 (H, W), and in words where they are from."""
    path = PREPARED / f"{split}.npy"
    if path.is_file():
        return list(map_array(path)[:count, ..., 0]), str(path)
    return [synthetic(seed) for seed in range(count)], f"a synthetic image of {SIDE}x{SIDE}"


def synthetic(seed: int) -> NDArray[np.uint8]:
    """Draw blobs with sharp edges under uneven light with noise: all gray values, uint8 (256, 256)."""
    from skimage.data import binary_blobs

    rng = np.random.default_rng(seed)
    light = np.linspace(0.2, 1.0, SIDE)[:, None] * np.linspace(1.0, 0.5, SIDE)
    blobs = np.where(binary_blobs(SIDE, volume_fraction=0.4, rng=rng), 1.0, 0.3) * light
    return (np.clip(blobs + rng.normal(0, 0.02, blobs.shape), 0, 1) * 255).astype(np.uint8)


class Scores(NamedTuple):
    """The task's loss of a network before and after an export, on validation images."""

    task: str
    loss: str
    before: float
    after: float
    images: int

    def __str__(self) -> str:
        change = f"{self.before:.4g} → {self.after:.4g}"
        return f"{self.task}: {self.loss} {change} on {self.images} validation images"


def scores(task: str, before: Function, after: Function) -> Scores | None:
    """Measure two networks on validation images of a task; None if there are no targets.

    The loss is one minus a soft F1 for discrete targets, else the mean absolute error.
    """
    try:
        split = load_split(PREPARED, TARGETS / task, "validation")
        discrete = read_json(TARGETS / task / "manifest.json", f"targets {task}", Targets)["discrete"]
    except UserError:
        return None
    name = "soft_f1" if discrete else "mae"
    some = spread(split, SCORED)
    targets = some.targets.astype(np.float32)
    pictures = some.images.astype(np.float32) / np.float32(255)

    def loss(function: Function) -> float:
        outputs = np.concatenate([np.asarray(function(picture[None])) for picture in pictures])
        return float(ratio(LOSSES[name](targets, outputs)))

    return Scores(task, name, loss(before), loss(after), len(pictures))
