"""What every command begins with: settings that are right as a whole, and TensorFlow as they want it."""

from __future__ import annotations

from itertools import product
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
        if chosen.operator is None:  # wanted outputs, and problems, are looked at by the stage `targets`
            continue
        where = f"{params}: tasks.{name}"
        operator = operators.resolve(chosen.operator, f"{where}.operator")
        operator.check(chosen.arguments, f"{where}.arguments")
        if chosen.loss == "soft_f1" and not operator.discrete:
            raise UserError(f"{where}.loss: soft_f1 needs a discrete operator; use mae or mse")

    pairs = {*product(settings.runs.tasks, settings.runs.strategies)} | {(task, strategy)}
    problems = {(a, b) for a, b in pairs if a and b and settings.tasks[a].problem}
    check_strategies(settings, problems, params)
    return settings


def check_strategies(settings: Settings, problems: set[tuple[str, str]], params: Path) -> None:
    """Raise UserError for a strategy that there is not, or not for the problem that it is to minimize."""
    # With numpy, so last: what is wrong before is told without it.
    from selfscale.search.channel_importance import CHANNEL_STRATEGIES
    from selfscale.search.growth import GROWTH_STRATEGIES
    from selfscale.search.importance import STRATEGIES

    for name, wanted in settings.strategies.items():
        only = wanted.select in CHANNEL_STRATEGIES.names and wanted.select not in STRATEGIES.names
        known = CHANNEL_STRATEGIES if only else STRATEGIES
        known.bind(wanted.select, wanted.arguments, f"{params}: strategies.{name}")
    GROWTH_STRATEGIES.bind(settings.growth.select, settings.growth.arguments, f"{params}: growth")
    for task, name in sorted(problems):
        wanted, where = settings.strategies[name], f"{params}: strategies.{name}, for the problem {task}"
        CHANNEL_STRATEGIES.bind(wanted.select, wanted.arguments, where)
        if wanted.scaling or wanted.start:
            raise UserError(f"{where}: its model neither grows nor starts from widths; leave them out")
    if problems and settings.minimization.target is not None:
        raise UserError(f"{params}: minimization.target: is for operators and targets; leave it out")


def import_pipeline(execution: Execution) -> ModuleType:
    """The stages that train."""
    import_tensorflow()
    from selfscale.nn import devices
    from selfscale.pipeline import train as pipeline

    devices.configure(execution)
    use_float16()

    return pipeline
