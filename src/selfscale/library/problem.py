"""What a task of the pipeline may bring in place of an operator: a model, data, loss and metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from selfscale.library.examples import Source
from selfscale.library.metric import Direction
from selfscale.library.options import check_model, whole


@dataclass(frozen=True, eq=False)
class Problem:
    """A model of one's own, and what it is trained and judged by.

    The function that `problem` names in `params.yaml` returns it (see `docs/own-problem.md`):

    ```python
    def digits(seed: int, width: int = 16) -> selfscale.Problem:
        train, validation, test = arrays()
        loss = "sparse_categorical_crossentropy"
        return selfscale.Problem(network(width), train, validation, test, loss=loss, metric="accuracy")
    ```

    Args:
        model: Functional or sequential model; what it has learnt before counts.
        train: Data, as `selfscale.minimize` takes them.
        validation: Data to decide on; they have to end.
        test: Data that are looked at once, in the end; they have to end.
        loss: As `compile` takes it; by default that of `compile`.
        optimizer: By default that of `compile`, or else Adam.
        metric: What decides, as `selfscale.minimize` takes it.
        direction: Whether `"lower"` or `"higher"` is better, for a metric of one's own.
        batch_size: Of arrays.
        protect: Names of layers that keep all channels.
        round_to: Widths are multiples of it.

    Raises:
        ValueError: It is no model, or no data; the message is one line.
    """

    model: keras.Model
    train: Any
    validation: Any
    test: Any
    loss: Any = None
    optimizer: Any = None
    metric: Any = None
    direction: Direction | None = None
    batch_size: int = 32
    protect: Sequence[str] = ()
    round_to: int = 1

    def __post_init__(self) -> None:
        check_model(self.model)
        whole("batch_size", self.batch_size, 1)
        whole("round_to", self.round_to, 1)
        for name in ("train", "validation", "test"):
            Source(getattr(self, name), name, self.batch_size)
