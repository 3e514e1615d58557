"""Alterations of the filters that a trial is about: disable, freeze, reinitialize (thesis 2.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from selfscale.decisions import Filter
from selfscale.nn.masking import MaskedNetwork

# (network, filters, random numbers); undone by restoring a checkpoint.
Alteration = Callable[[MaskedNetwork, Sequence[Filter], np.random.Generator], None]


def disable(network: MaskedNetwork, filters: Sequence[Filter], rng: np.random.Generator) -> None:
    """Disable the filters; all others train on."""
    network.disable(*filters)


def disable_and_freeze(network: MaskedNetwork, filters: Sequence[Filter], rng: np.random.Generator) -> None:
    """Disable the filters and freeze the others of their layers.

    A disabled filter is not updated anyway. Its neighbours are frozen, so that they do not just become
    what it was, while the rest of the network compensates; a second session then trains all that is
    left.
    """
    network.disable(*filters)
    layers = {filter.layer for filter in filters}
    network.freeze(
        *(Filter(layer, int(index)) for layer in layers for index in np.flatnonzero(network.active[layer]))
    )


def reinitialize(network: MaskedNetwork, filters: Sequence[Filter], rng: np.random.Generator) -> None:
    """Redraw the filters, kernel and bias, by their layers' own initializers; removes nothing."""
    for filter in filters:
        network.masks.reinitialize(network.position(filter.layer), [network.channel(filter)], rng)


ALTERATIONS: dict[str, Alteration] = {
    "disable": disable,
    "disable_and_freeze": disable_and_freeze,
    "reinitialize": reinitialize,
}
