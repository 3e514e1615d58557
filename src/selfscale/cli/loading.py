"""What every command begins with: settings that are right as a whole, and TensorFlow as they want it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from selfscale.errors import UserError, unknown
from selfscale.processes import import_tensorflow, use_float16

if TYPE_CHECKING:
    from selfscale.config import Execution
    from selfscale.settings import Settings


def load(params: Path, task: str | None = None, strategy: str | None = None) -> Settings:
    """The checked settings, in which the task and the strategy exist."""
    from selfscale.data import operators
    from selfscale.settings import load as read

    settings = read(params)
    if task is not None and task not in settings.tasks:
        raise UserError(unknown("task", task, settings.tasks))
    if strategy is not None and strategy not in settings.strategies:
        raise UserError(unknown("strategy", strategy, settings.strategies))
    for name, chosen in settings.tasks.items():
        if chosen.operator is None:  # what wanted outputs are like, the stage `targets` finds out
            continue
        where = f"{params}: tasks.{name}"
        operator = operators.resolve(chosen.operator, f"{where}.operator")
        operator.check(chosen.arguments, f"{where}.arguments")
        if chosen.loss == "soft_f1" and not operator.discrete:
            raise UserError(f"{where}.loss: soft_f1 needs a discrete operator; use mae or mse")

    # With numpy, so last: what is wrong before is told without it.
    from selfscale.search.growth import GROWTH_STRATEGIES
    from selfscale.search.importance import STRATEGIES

    for name, wanted in settings.strategies.items():
        STRATEGIES.bind(wanted.select, wanted.arguments, f"{params}: strategies.{name}")
    GROWTH_STRATEGIES.bind(settings.growth.select, settings.growth.arguments, f"{params}: growth")
    return settings


def import_pipeline(execution: Execution) -> ModuleType:
    """The stages that train."""
    import_tensorflow()
    from selfscale.nn import devices
    from selfscale.pipeline import train as pipeline

    devices.configure(execution)
    use_float16()

    return pipeline
