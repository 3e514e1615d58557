"""What a session is fed with: random crops, and a learning rate for each step."""

from __future__ import annotations

import numpy as np

from selfscale.dataset import Split


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
    count, height, width, _ = split.images.shape
    h, w = (min(crop or height, height), min(crop or width, width))
    which = rng.integers(count, size=shape).ravel()
    tops = rng.integers(height - h + 1, size=shape).ravel()
    lefts = rng.integers(width - w + 1, size=shape).ravel()

    def cut(array: np.ndarray) -> np.ndarray:
        out = np.empty((which.size, h, w, 1), array.dtype)
        for position, (image, top, left) in enumerate(zip(which, tops, lefts, strict=True)):
            out[position] = array[image, top : top + h, left : left + w]
        return out.reshape(*shape, h, w, 1)

    return Split(cut(split.images), cut(split.targets))
