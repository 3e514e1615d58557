"""What a session is fed with: random crops, and a learning rate for each step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from selfscale.data.prepare import Split


def learning_rates(steps: int, peak: float, warmup: float) -> np.ndarray:
    """Linear warm-up over a share of the steps, then cosine decay to zero; float32 (steps,)."""
    step = np.arange(steps) + 1.0
    rising = max(1.0, warmup * steps)
    falling = np.clip((step - rising) / max(1.0, steps - rising), 0.0, 1.0)
    return (peak * np.where(step < rising, step / rising, 0.5 * (1 + np.cos(np.pi * falling)))).astype(
        "float32"
    )


def draw(split: Split, shape: tuple[int, int], crop: int | None, rng: np.random.Generator) -> Split:
    """Random crops, shape (steps, batch, h, w, 1), cut alike from images and targets; None: whole images.

    Read straight from memory-mapped arrays: only the pixels drawn are ever loaded.
    """
    where, (h, w) = places(split.images.shape, shape, crop, rng)
    corners = where.reshape(-1, 3).tolist()

    def cut(array: np.ndarray) -> np.ndarray:
        out = np.empty((len(corners), h, w, 1), array.dtype)
        for position, (image, top, left) in enumerate(corners):
            out[position] = array[image, top : top + h, left : left + w]
        return out.reshape(*shape, h, w, 1)

    return Split(cut(split.images), cut(split.targets))


def places(
    images: Sequence[int], shape: tuple[int, int], crop: int | None, rng: np.random.Generator
) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Where to cut from images of shape (N, H, W, 1), and how much.

    Image, top and left, int64 (steps, batch, 3), and the height and width of all crops.
    """
    count, height, width, _ = images
    h, w = crop_size(images, crop)
    ends = (count, height - h + 1, width - w + 1)
    return np.stack([rng.integers(end, size=shape) for end in ends], axis=-1), (h, w)


def crop_size(images: Sequence[int], crop: int | None) -> tuple[int, int]:
    """Height and width of a crop from images of shape (N, H, W, 1)."""
    _, height, width, _ = images
    return min(crop or height, height), min(crop or width, width)
