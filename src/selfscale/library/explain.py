"""`selfscale.explain`: the groups of a model's channels, what each costs, what is pinned and why."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from selfscale.errors import counted
from selfscale.library.network import unique_names
from selfscale.library.options import check_model
from selfscale.nn.blocking import Chain
from selfscale.nn.graph import Cost, trace
from selfscale.reporting.tables import markdown


@dataclass(frozen=True)
class GroupExplanation:
    """A group: its layers, and what goes with one of its channels."""

    name: str
    layers: tuple[str, ...]
    channels: int
    saves: Cost
    pins: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """What may be removed from a model; `str` of it is a table."""

    model: str
    cost: Cost
    groups: tuple[GroupExplanation, ...]
    execution: str  # of a chain of convolutions: on blocks of pixels, or on images and why

    def __str__(self) -> str:
        groups = sum(not group.pins for group in self.groups)
        removable = sum(group.channels for group in self.groups if not group.pins)
        rows = [
            (
                group.name,
                str(group.channels),
                "-" if group.pins else f"{group.saves.macs:,}",
                "-" if group.pins else f"{group.saves.parameters:,}",
                "; ".join(group.pins) or "may go",
                ", ".join(group.layers[1:4])
                + (f" and {len(group.layers) - 4} more" if group.layers[4:] else ""),
            )
            for group in self.groups
        ]
        header = ("group", "channels", "MACs of one", "parameters of one", "pinned", "together with")
        return (
            f"{self.model}: {self.cost.macs:,} multiply-accumulates, {self.cost.parameters:,} parameters; "
            f"{counted(removable, 'channel')} in {counted(groups, 'group')} may go\n\n"
            + markdown([header, *rows])
            + (f"\nOn a CPU it {self.execution}" if self.execution else "")
        )


def explain(model: keras.Model, *, trust_lambda: bool = False) -> Explanation:
    """Return the groups of a model's channels, what each costs, and what is pinned and why.

    ```python
    print(selfscale.explain(keras.applications.MobileNetV2(weights=None)))
    ```

    Raises:
        ValueError: The model can't be traced; the message is one line.
    """
    check_model(model)
    graph = trace(model, trust_lambda=trust_lambda)
    full = graph.cost({})
    found = []
    for group, name in zip(graph.groups, unique_names(graph.groups), strict=True):
        saves = Cost(0, 0)
        if group.removable:
            mask = np.arange(group.size) > 0
            less = graph.cost({group.index: mask})
            saves = Cost(full.macs - less.macs, full.parameters - less.parameters)
        layers = dict.fromkeys(
            "/".join(slice.layer) for slice in (*group.producers, *group.followers, *group.readers)
        )
        found.append(GroupExplanation(name, tuple(layers), group.size, saves, group.pins))
    chain = Chain(model)
    return Explanation(model.name, full, tuple(found), str(chain) if chain.stages else "")
