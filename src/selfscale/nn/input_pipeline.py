"""Images and targets of a split, and the random crops that a session draws from them.

Without TensorFlow, since data preparation uses `Split`, too; see `feeding` for what a device reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Split:
    """Images and targets of a split, arrays of shape `(N, H, W, 1)`, perhaps mapped from disk.

    Attributes:
        images: uint8, 0 to 255.
        targets: uint8 (0 or 1) if they are discrete, else float16 in the operator's own range.
        photograph: Number of the photograph that each image is of, int64 `(N,)`. Defaults to one each.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.uint8] | NDArray[np.float16]
    photograph: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        if not len(self.photograph):
            object.__setattr__(self, "photograph", np.arange(len(self.images)))

    @property
    def discrete(self) -> bool:
        return self.targets.dtype == np.uint8


def spread(split: Split, count: int) -> Split:
    """Pick `count` images, or all: as many of each photograph as of any other, as far as it has them.

    Of a photograph with more of them, those that are evenly spaced. The order stays.
    """
    if count >= len(split.images):
        return split
    order = np.argsort(split.photograph, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(split.photograph[order])) + 1)
    turns = np.concatenate([np.arange(len(group)) for group in groups])
    owners = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    shares = np.bincount(owners[np.argsort(turns, kind="stable")[:count]], minlength=len(groups))
    some = [group[np.arange(n) * len(group) // n] for group, n in zip(groups, shares, strict=True) if n]
    chosen = np.sort(np.concatenate(some))
    return Split(split.images[chosen], split.targets[chosen], split.photograph[chosen])


def draw(split: Split, shape: tuple[int, int], crop: int | None, rng: np.random.Generator) -> Split:
    """Draw random crops, cut alike from images and targets.

    Reads from memory-mapped arrays only the pixels that are drawn.

    Args:
        split: Where to draw from.
        shape: Steps and batch size.
        crop: Side of the crops in pixels; None: whole images.
        rng: Source of randomness.

    Returns:
        Arrays of shape `(steps, batch, h, w, 1)`.
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
    """Draw where to cut crops from images of shape `(N, H, W, 1)`.

    Returns:
        Image, top and left of each crop, int64 of shape `(steps, batch, 3)`; height and width of all.
    """
    count, height, width, _ = images
    h, w = crop_size(images, crop)
    ends = (count, height - h + 1, width - w + 1)
    return np.stack([rng.integers(end, size=shape) for end in ends], axis=-1), (h, w)


def crop_size(images: Sequence[int], crop: int | None) -> tuple[int, int]:
    """Return height and width of a crop from images of shape `(N, H, W, 1)`."""
    _, height, width, _ = images
    return min(crop or height, height), min(crop or width, width)
