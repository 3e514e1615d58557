"""Refit what reads removed filters by least squares to what it put out before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from selfscale.decisions import Filter
from selfscale.nn.blocking import Chain
from selfscale.nn.masking import MaskedNetwork, MaskState
from selfscale.nn.metrics import to_float

POSITIONS = 20_000
# Relative to the mean square of what is read: in directions that hardly occur, weights stay.
RIDGE = 1e-10
IMAGES_PER_CALL = 8


def refit(network: MaskedNetwork, before: MaskState, images: np.ndarray, rng: np.random.Generator) -> None:
    """Let the convolutions that read filters that were disabled make up for it.

    Each of these gets the weights that come closest, before its activation, to what it put out while
    the filters were on (He et al. 2017, arXiv:1707.06168). The first layer comes first, so that a later
    one also makes up for what an earlier one could not. Only enabled and unfrozen filters change, and
    of their weights only those that read enabled channels. In the positions that are looked at, the
    squared error is at most that of plain removal.

    Args:
        network: It is changed in place.
        before: Its state before some filters were disabled.
        images: Training images, uint8 (N, H, W, C), of which 20,000 positions are drawn, from each
            image the same number. All of them pass through the network: a few dozen are enough.
        rng: Draws the positions.
    """
    now = network.state()
    removed = {layer for layer in network.layers if (before.active[layer] & ~now.active[layer]).any()}
    readers = sorted(network.position(layer) + 1 for layer in removed)
    # Seeds, as the same positions are looked at before and after.
    seeds = [int(seed) for seed in rng.integers(2**63, size=len(readers))]
    network.restore(before)
    kernels = [network.blocks[reader].convolution.kernel.numpy() for reader in readers]
    then = [list(_read(network, *pair, images)) for pair in zip(readers, seeds, strict=True)]
    network.restore(now)
    for reader, seed, kernel, old in zip(readers, seeds, kernels, then, strict=True):
        after = _read(network, reader, seed, images)
        if reader == readers[0]:  # nothing before it has changed: only the removed channels are zero now
            enabled = network.enabled()[reader - 1]
            after = (one * np.tile(enabled, one.shape[1] // enabled.size) for one in old)
        _fit(network, reader, kernel, old, after)


def refit_if_better(
    network: MaskedNetwork,
    before: MaskState,
    images: np.ndarray,
    rng: np.random.Generator,
    loss: Callable[[MaskedNetwork], float],
) -> bool:
    """Refit what reads disabled filters if that lowers the loss.

    Args:
        network, before, images, rng: As of `refit`.
        loss: Measures the network on training images, e.g. `Probe.loss_of`.

    Returns:
        Whether the network was refitted; if not, its weights are unchanged.
    """
    plain, state = loss(network), network.state()
    refit(network, before, images, rng)
    if loss(network) < plain:
        return True
    network.restore(state)
    return False


def losses_refitted(
    network: MaskedNetwork,
    candidates: Sequence[Filter],
    images: np.ndarray,
    rng: np.random.Generator,
    loss: Callable[[], float],
) -> np.ndarray:
    """Return the loss without each candidate alone, what reads it being refitted; changes nothing.

    The positions are looked at once, not once for each candidate: the products of all that a convolution
    reads there hold those of each choice of channels.

    Args:
        network, images, rng: As of `refit`.
        candidates: Enabled hidden filters.
        loss: Measures the network as it is.

    Returns:
        float64 array of shape `(candidates,)`; infinite for the only enabled filter of a layer.
    """
    state, losses = network.state(), np.full(len(candidates), np.inf)
    moments: dict[int, np.ndarray] = {}
    seed = int(rng.integers(2**63))
    for number, filter in enumerate(candidates):
        reader = network.position(filter.layer) + 1
        before = network.enabled()[reader - 1]
        if before.sum() < 2:
            continue
        if reader not in moments:
            rows = [_with_bias(network, reader, one) for one in _read(network, reader, seed, images)]
            moments[reader] = np.sum([one.T @ one for one in rows], axis=0)
        kernel = network.blocks[reader].convolution.kernel.numpy()
        network.disable(filter)
        kernel = kernel.reshape(-1, kernel.shape[-1])
        gone = np.flatnonzero(np.tile(before & ~network.enabled()[reader - 1], len(kernel) // before.size))
        _solve(network, reader, moments[reader], moments[reader][:, gone] @ kernel[gone])
        losses[number] = loss()
        network.restore(state)
    return losses


def patches(
    convolution: keras.layers.Conv2D, features: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw positions of a convolution's output, and return what it reads there.

    Args:
        convolution: Of any strides, dilation and padding.
        features: What it reads of one image, (H, W, C).
        count: Positions to draw, without replacement; all of them if there are fewer.

    Returns:
        The positions, row by row, and an array (positions, kernel height * kernel width * C), ordered as
        the kernel is.
    """
    axes = []
    for side, kernel, stride, dilation in zip(
        features.shape, convolution.kernel_size, convolution.strides, convolution.dilation_rate, strict=False
    ):
        span = (kernel - 1) * dilation + 1
        is_same = convolution.padding == "same"
        outputs = -(-side // stride) if is_same else (side - span) // stride + 1
        missing = max(0, (outputs - 1) * stride + span - side) if is_same else 0
        axes.append((outputs, stride, dilation * np.arange(kernel), (missing // 2, missing - missing // 2)))
    (height, down, y, above), (width, right, x, beside) = axes
    chosen = rng.permutation(height * width)[:count]
    rows = chosen[:, None] // width * down + y
    columns = chosen[:, None] % width * right + x
    padded = np.pad(features, (above, beside, (0, 0)))
    return chosen, padded[rows[:, :, None], columns[:, None, :]].reshape(len(chosen), -1)


def _read(network: MaskedNetwork, reader: int, seed: int, images: np.ndarray) -> Iterator[np.ndarray]:
    """What the convolution at a position of the chain reads, in the same positions for the same seed."""
    rng, count = np.random.default_rng(seed), max(1, POSITIONS // len(images))
    layer = (*network.layers, len(network.widths))[reader]
    features, enabled = Chain(network.features(layer), images.shape[1:3]), network.reads(layer)
    for start in range(0, len(images), IMAGES_PER_CALL):
        batch = np.asarray(features.on_images(to_float(images[start : start + IMAGES_PER_CALL])))
        for one in batch * enabled:
            yield patches(network.blocks[reader].convolution, one, count, rng)[1]


def _fit(
    network: MaskedNetwork,
    reader: int,
    kernel: np.ndarray,
    before: Sequence[np.ndarray],
    after: Iterator[np.ndarray],
) -> None:
    """Add to a convolution's weights what is nearest to the difference that the removal makes.

    Minimizes |S d - r|^2 + ridge |d|^2, with what is read now as rows of S, and what the old weights
    make of the difference between then and now as r; d is the change of the weights. `kernel` are those
    from before the removal.
    """
    kernel = kernel.reshape(-1, kernel.shape[-1])
    squares: Any = 0.0
    products: Any = 0.0
    for then, now in zip(before, after, strict=True):
        system = _with_bias(network, reader, now)
        squares = squares + system.T @ system
        products = products + system.T @ ((then.astype(np.float64) - now) @ kernel)
    _solve(network, reader, squares, products)


def _with_bias(network: MaskedNetwork, reader: int, rows: np.ndarray) -> np.ndarray:
    """Return what a convolution reads as float64, with a column of ones if it has a bias."""
    ones = np.ones((len(rows), int(network.blocks[reader].convolution.use_bias)))
    return np.hstack([rows.astype(np.float64), ones])


def _solve(network: MaskedNetwork, reader: int, squares: np.ndarray, products: np.ndarray) -> None:
    """Change the weights of enabled, unfrozen filters that read enabled channels, by normal equations.

    Args:
        network: It is changed in place.
        reader: Position of the convolution.
        squares: Products of what it reads, `(n, n)` for n weights of a filter, its bias the last.
        products: Those with what its output lacks, `(n, filters)`.
    """
    convolution = network.blocks[reader].convolution
    weights = [weight.copy() for weight in convolution.get_weights()]
    kernel = weights[0].reshape(-1, convolution.filters)
    rows = np.flatnonzero(np.tile(network.enabled()[reader - 1], len(kernel) // weights[0].shape[2]))
    columns = network.enabled()[reader]
    for filter in network.frozen():
        if network.position(filter.layer) == reader:
            columns[network.channel(filter)] = False
    used = [*rows, len(kernel)] if convolution.use_bias else rows
    squares = squares[np.ix_(used, used)]
    ridge = RIDGE * squares.trace() / len(squares)
    if ridge == 0:  # it reads nothing but zeros
        return
    change = np.linalg.solve(squares + ridge * np.eye(len(squares)), products[used][:, columns])
    kernel[np.ix_(rows, columns)] += change[: len(rows)].astype(np.float32)
    if convolution.use_bias:
        weights[1][columns] += change[-1].astype(np.float32)
    convolution.set_weights(weights)
