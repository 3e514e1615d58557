"""What a trial does to the filters that were selected (thesis 2.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from selfscale.nn.masking import MaskedNetwork
from selfscale.records import Filter

# (network, filters, random numbers); what it does is undone by restoring a snapshot.
Alteration = Callable[[MaskedNetwork, Sequence[Filter], np.random.Generator], None]


def disable(network: MaskedNetwork, filters: Sequence[Filter], rng: np.random.Generator) -> None:
    """Switch the filters off; all others train on."""
    network.disable(*filters)


def disable_and_freeze(network: MaskedNetwork, filters: Sequence[Filter], rng: np.random.Generator) -> None:
    """Switch the filters off and freeze the others of their layers.

    A disabled filter is not updated anyway. So that its neighbours do not just become what it was,
    they are held fast while the rest of the network makes up for it; a second session then trains
    all that is left.
    """
    network.disable(*filters)
    layers = {filter.layer for filter in filters}
    network.freeze(
        *(Filter(layer, int(index)) for layer in layers for index in np.flatnonzero(network.active[layer]))
    )


def reinitialize(network: MaskedNetwork, filters: Sequence[Filter], rng: np.random.Generator) -> None:
    """Draw the filters anew by their layers' initializers: nothing is removed, a filter starts afresh."""
    for filter in filters:
        network.reinitialize(filter, rng)


ALTERATIONS: dict[str, Alteration] = {
    "disable": disable,
    "disable_and_freeze": disable_and_freeze,
    "reinitialize": reinitialize,
}
