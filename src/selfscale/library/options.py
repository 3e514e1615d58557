"""What `selfscale.minimize` is told: checked before anything starts, and made into a task and a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from selfscale.errors import unknown
from selfscale.library.examples import Batch, Source, described
from selfscale.library.labels import check_loss, check_targets
from selfscale.library.metric import Direction, deciding, loss_weights
from selfscale.library.network import Task
from selfscale.library.plan import Budget, Plan
from selfscale.nn.graph_walk import every_layer
from selfscale.progress import Listener, Progress
from selfscale.search.channel_importance import CHANNEL_STRATEGIES, ChannelStrategy

SHORTEST, LONGEST = 50, 1000  # steps of a session, which is an epoch if that is between
SESSIONS = 20  # that a limit on steps is meant for, at least
LEAST = 2  # of a trial, and of as many steps for training what it leaves
LONG = 4  # sessions that a long one is as long as; with a limit on steps, at most as long as those above
LIMITS = ("steps", "seconds", "session")


@dataclass(frozen=True)
class Options:
    """Arguments of `selfscale.minimize`."""

    model: keras.Model
    train: Any
    validation: Any
    tolerance: float
    loss: Any
    optimizer: Any
    metric: Any
    direction: Direction | None
    cost: str | Callable[[keras.Model], float]
    strategy: str | ChannelStrategy
    protect: Sequence[str]
    round_to: int
    budget: Mapping[str, float] | None
    confidence: float
    batch_size: int
    seed: int
    directory: str | Path | None
    callbacks: Sequence[Callable[..., Any]]
    progress: Listener | Progress | bool
    mlflow: bool
    trust_lambda: bool

    def __post_init__(self) -> None:
        check_model(self.model)
        number("tolerance", self.tolerance, 0, 1)
        number("confidence", self.confidence, 0.5, 0.9999)
        whole("round_to", self.round_to, 1)
        whole("batch_size", self.batch_size, 1)
        whole("seed", self.seed, 0)
        if not isinstance(self.budget, Mapping | None):
            raise ValueError(f"budget: must be a dict of {', '.join(LIMITS)}, not {self.budget!r}")
        for key, limit in (self.budget or {}).items():
            if key not in LIMITS:
                raise ValueError(unknown("budget", key, LIMITS))
            number(f"budget: {key}", limit, int(key != "seconds"), float("inf"))
            if key != "seconds" and limit != limit // 1:  # 1e4 is a whole number, too
                raise ValueError(f"budget: {key}: must be a whole number, not {limit!r}")
        if self.direction not in (None, "lower", "higher"):
            raise ValueError(f"direction: must be 'lower' or 'higher', not {self.direction!r}")
        if not (isinstance(self.callbacks, Sequence) and all(map(callable, self.callbacks))):
            raise ValueError("callbacks: must be a list of functions, which are called with each decision")

    def plan(self, train: Source) -> Plan:
        """Return how the minimization goes.

        Raises:
            ValueError: A strategy or a layer is unknown.
        """
        limits = dict(self.budget or {})
        steps = int(limits["steps"]) if "steps" in limits else None
        session = int(limits.get("session", 0)) or min(max(train.batches or LONGEST, SHORTEST), LONGEST)
        if steps is not None and "session" not in limits:
            session = max(1, min(session, steps // SESSIONS))
        if steps is not None and steps < LEAST * session:
            raise ValueError(
                f"budget: steps: {steps} are too few for sessions of {session}; give at least "
                f"{LEAST * session}, or a shorter session"
            )
        protect = (self.protect,) if isinstance(self.protect, str) else tuple(self.protect)
        names = {name for path, _ in every_layer(self.model) for name in path}
        for name in protect:
            if name not in names:
                raise ValueError(unknown("protect", name, names))
        strategy = self.strategy
        if isinstance(strategy, str):
            strategy = CHANNEL_STRATEGIES.resolve(strategy, "strategy")
        return Plan(
            tolerance=self.tolerance,
            confidence=self.confidence,
            strategy=strategy,
            protect=protect,
            round_to=self.round_to,
            session_steps=session,
            long_steps=session * (LONG if steps is None else SESSIONS),
            budget=Budget(steps, limits.get("seconds")),
            seed=self.seed,
        )


class Given(Protocol):
    """What a caller says of training and of what decides; see `selfscale.minimize`."""

    @property
    def model(self) -> keras.Model: ...
    @property
    def loss(self) -> Any: ...
    @property
    def optimizer(self) -> Any: ...
    @property
    def metric(self) -> Any: ...
    @property
    def direction(self) -> Direction | None: ...


def task_of(given: Given, validation: Sequence[Batch], trust_lambda: bool = False) -> Task:
    """Return how networks are trained and judged.

    Raises:
        ValueError: There is no loss, or loss, metric and data do not fit each other.
    """
    model, loss, optimizer = given.model, given.loss, given.optimizer
    compiled = bool(model.compiled)
    if loss is None and not compiled:
        raise ValueError("loss: the model is not compiled; compile it, or give loss= and optimizer=")
    weights = loss_weights(model) if loss is None else None
    loss = model.loss if loss is None else loss
    if optimizer is None:
        optimizer = model.optimizer if compiled else "adam"
    try:
        optimizer = keras.optimizers.get(optimizer)
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimizer: {optimizer!r} is none that Keras knows") from error
    check_loss(model, loss)
    check_targets(model, loss, validation, "validation")
    metric = deciding(model, loss, given.metric, given.direction)
    return Task(optimizer, loss, weights, metric, validation, trust_lambda)


def check_model(model: Any) -> None:
    """Raise ValueError if something is no model of Keras 3."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"model: must be a keras.Model, not {described(model)}")


def number(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not low <= value <= high:
        raise ValueError(f"{name}: must be a number from {low:g} to {high:g}, not {value!r}")


def whole(name: str, value: Any, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
        raise ValueError(f"{name}: must be a whole number of at least {low}, not {value!r}")
