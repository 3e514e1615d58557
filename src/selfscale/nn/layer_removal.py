"""Removal of a whole hidden layer: a new network without it, which starts from what was learnt.

The network is rebuilt rather than bypassed by a mask: a bypass would cost a convolution in every step
of every session, a new trace about a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import keras
import numpy as np

from selfscale.nn.alterations import reinitialize
from selfscale.nn.fcn import RESIZING, Block, calibrate_layer, chained, response
from selfscale.nn.input_pipeline import Split, spread
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.redundancy import silent
from selfscale.nn.refit import patches

FITTED_IMAGES = 16
PIXELS = 20_000
# Relative to the largest singular value: directions that the features hardly have get no weight.
CUTOFF = 1e-6


def removable_layers(network: MaskedNetwork) -> list[int]:
    """Return the hidden layers that may be removed: not the only one, and none that resizes the image."""
    if len(network.layers) < 2:
        return []
    return [layer for layer in network.layers if not resizes(network.block(layer))]


def resizes(block: Block) -> bool:
    convolution = block.convolution
    return (
        convolution.strides != (1, 1)
        or convolution.padding != "same"
        or any(isinstance(layer, RESIZING) for layer in block.followers)
    )


def without_layer(
    network: MaskedNetwork,
    layer: int,
    split: Split,
    attempt: int,
    rng: np.random.Generator,
) -> MaskedNetwork:
    """Return a new network without a hidden layer; `network` is not changed.

    All other layers keep weights and masks, except the convolution behind the removed one, whose inputs
    are others now. On attempt 0 it is fitted by least squares to its former output (reconstruction, as
    in He et al. 2017, arXiv:1707.06168). On attempt 1 it keeps its weights where their shape fits;
    where not, and on later attempts, it is reinitialized. An output layer that was not fitted is
    calibrated to the mean of the targets. Filters that are then zero everywhere are reinitialized, too:
    they could not learn.

    Args:
        network: Network to start from.
        layer: Number of the layer.
        split: Training images and their targets; 16 are used, spread over the photographs.
        attempt: How often the removal of this layer has failed.
        rng: Source of randomness.

    Raises:
        ValueError: The layer may not be removed.
    """
    if layer not in removable_layers(network):
        raise ValueError(f"layer {layer} may not be removed")
    smaller = with_layers(network, [other for other in network.layers if other != layer])
    behind = (*network.layers, len(network.widths))[network.layers.index(layer) + 1]
    refitted = network.block(behind).convolution
    convolution = smaller.block(behind).convolution
    some = spread(split, FITTED_IMAGES)
    pictures = some.images / np.float32(255)
    features = np.asarray(smaller.features(behind)(pictures)) * smaller.reads(behind)
    if attempt == 0:
        wanted = response(refitted, network.features(behind)(pictures))
        fit(convolution, features, np.asarray(wanted + refitted.bias if refitted.use_bias else wanted), rng)
    elif attempt > 1 or convolution.kernel.shape != refitted.kernel.shape:
        reinitialize(smaller, smaller.filters(behind), rng)
    if attempt > 0 and behind == len(network.widths):
        calibrate_layer(convolution, features, float(some.targets.mean(dtype=np.float64)))
    smaller.masks.hold()  # what reads disabled filters was set, too
    reinitialize(smaller, silent(smaller, some.images, smaller.hidden()), rng)
    return smaller


def with_layers(network: MaskedNetwork, layers: Sequence[int]) -> MaskedNetwork:
    """Return a new network of these hidden layers only; masks stay, and weights where their shape fits."""
    kept = [network.block(layer) for layer in (*layers, len(network.widths))]
    indices = [network.indices[network.position(layer)] for layer in layers]
    smaller = MaskedNetwork(chained(network.model, kept), network.widths, layers, indices)
    smaller.disable(*(filter for filter in network.disabled() if filter.layer in layers))
    return smaller


def fit(
    convolution: keras.layers.Conv2D, features: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
) -> None:
    """Fit a convolution's weights by least squares, on a sample of pixels.

    Args:
        convolution: Layer whose weights are set.
        features: Its input, float32 of shape `(N, H, W, C)`.
        wanted: The output to fit, float32, before the activation.
        rng: Source of randomness.
    """
    share = max(1, PIXELS // len(features))
    samples = []
    for image, result in zip(features, wanted, strict=True):
        chosen, rows = patches(convolution, image, share, rng)
        samples.append((rows, result.reshape(-1, result.shape[-1])[chosen]))
    system, results = (np.concatenate(part).astype(np.float64) for part in zip(*samples, strict=True))
    if convolution.use_bias:
        system = np.hstack([system, np.ones((len(system), 1))])
    # As `lstsq` with that cutoff, from the normal equations: of all pixels, it takes far longer.
    inverse = np.linalg.pinv(system.T @ system, rcond=CUTOFF**2, hermitian=True)
    solution = inverse @ (system.T @ results)
    inputs = prod(convolution.kernel.shape[:-1])
    kernel = solution[:inputs].reshape(convolution.kernel.shape)
    convolution.set_weights([kernel, *solution[inputs:]])
