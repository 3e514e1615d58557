"""Optimizers by name (SOAP, Adam, any other of Keras's own), and the schedule of their learning rate."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from math import isfinite
from typing import Any

import keras
import numpy as np

from selfscale.errors import UserError, unknown
from selfscale.nn.soap import SOAP, OneReplica

CLIPPING = ("clipnorm", "clipvalue", "global_clipnorm")


def known() -> dict[str, type[keras.optimizers.Optimizer]]:
    """Return the optimizers that `create` makes, by their names in small letters."""
    return {
        name.lower(): optimizer
        for name, optimizer in (*vars(keras.optimizers).items(), ("soap", SOAP))
        if inspect.isclass(optimizer)
        and issubclass(optimizer, keras.optimizers.Optimizer)
        and "learning_rate" in inspect.signature(optimizer.__init__).parameters
    }


def create(
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    learning_rate: float = 0.001,
    clip_norm: float | None = None,
    where: str = "training.optimizer",
) -> keras.optimizers.Optimizer:
    """Make an optimizer, on one replica, that can be trained with and forgotten.

    Args:
        name: "soap" or the name of a Keras optimizer, in letters of any case.
        arguments: Keyword arguments of the optimizer, except `learning_rate`.
        learning_rate: The rate that it starts with; the training sets the rate of each step.
        clip_norm: Highest norm of all gradients together, unless `arguments` clip them in another way.
        where: The setting's key, for messages.

    Raises:
        UserError: there is no such optimizer, or it does not take these arguments.
    """
    chosen = _known(name, known(), where)
    arguments = dict(arguments or {})
    if "learning_rate" in arguments:
        raise UserError(f"{where}: 'learning_rate' is not an argument of the optimizer but of each session")
    defaults = {p.name: p.default for p in _parameters(chosen)}
    for argument, value in arguments.items():
        _known(argument, defaults, where)
        _check(argument, value, defaults[argument], where)
    if clip_norm is not None and not any(arguments.get(clipping) for clipping in CLIPPING):
        arguments["global_clipnorm"] = clip_norm
    one_replica = (
        chosen if issubclass(chosen, OneReplica) else type(chosen.__name__, (OneReplica, chosen), {})
    )
    try:
        return one_replica(learning_rate=float(learning_rate), **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {chosen.__name__}: {' '.join(str(error).split())}") from error


def learning_rates(steps: int, peak: float, warmup: float, plateau: float = 0.0) -> np.ndarray:
    """Return the learning rate of each step: linear warm-up, a plateau, then cosine decay to zero.

    Args:
        steps: Length of the session.
        peak: Highest learning rate.
        warmup: Share of the steps that warm up, in [0, 1].
        plateau: Share of the other steps that stay at the peak, in [0, 1]; cf. Haegele et al. 2024,
            arXiv:2405.18392.

    Returns:
        float32 array of shape `(steps,)`.
    """
    step = np.arange(steps) + 1.0
    rising = max(1.0, warmup * steps)
    high = rising + plateau * (steps - rising)
    falling = np.clip((step - high) / max(1.0, steps - high), 0.0, 1.0)
    rates = peak * np.where(step < rising, step / rising, 0.5 * (1 + np.cos(np.pi * falling)))
    return rates.astype("float32")


def _parameters(optimizer: type) -> list[inspect.Parameter]:
    """The keyword arguments of a class and its bases, its own last."""
    every = [
        parameter
        for base in reversed(optimizer.__mro__)
        for parameter in inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
    ]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p for p in every if p.kind in named and p.name not in ("self", "learning_rate")]


def _known(name: str, valid: Mapping[str, Any], where: str) -> Any:
    if str(name).lower() in valid:
        return valid[str(name).lower()]
    raise UserError(unknown(where, name, valid))


def _check(name: str, value: Any, default: Any, where: str) -> None:
    """Raise UserError for a value of another type than the default's, which Keras would not notice."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    if isinstance(default, bool):
        kind, fits = "true or false", isinstance(value, bool)
    elif isinstance(default, int):
        kind, fits = "a whole number", is_number and isinstance(value, int)
    else:  # without a default, mostly a number that may be left out
        kind, fits = "a number", is_number or (not isinstance(default, float) and not isinstance(value, str))
    if not (fits or name == "name"):
        raise UserError(f"{where}: '{name}' must be {kind}, not {value!r}")
