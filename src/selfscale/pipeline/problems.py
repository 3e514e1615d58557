"""Tasks that name a problem: a user's own model and data, made by a function, and how networks do on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from selfscale import files
from selfscale.data.operators import own_code
from selfscale.errors import UserError, reason
from selfscale.library.examples import Source, check_inputs, described, in_memory
from selfscale.library.loop import in_blocks
from selfscale.library.minimize import check_computable, check_removable
from selfscale.library.network import Network
from selfscale.library.options import task_of
from selfscale.library.problem import Problem
from selfscale.library.result import Size
from selfscale.nn.graph import trace
from selfscale.nn.rewriting import rewrite
from selfscale.paths import Training
from selfscale.pipeline.inputs import library_code
from selfscale.plugins import check_arguments, imported
from selfscale.reporting.statistics import over_photographs
from selfscale.settings import Settings

UNKNOWN = 64  # pixels along an axis of unknown size, as in `ChannelGraph.cost`


class Posed:
    """A task's problem for one seed, its network, and what measures networks on its data.

    The loss is the metric that decides or, where higher is better, its reciprocal: the tolerance of
    `selfscale.minimize` is relative to the metric.

    Args:
        settings: Name the function and its arguments.
        task: The task's name.
        seed: Of the model's first weights.
        trained: The first session, whose weights the network has; None: those that the function gave it.

    Raises:
        UserError: The function fails, model, data, loss and metric do not fit, or the weights are missing.
    """

    def __init__(self, settings: Settings, task: str, seed: int, trained: Training | None = None) -> None:
        self.name = settings.tasks[task].problem
        self.problem = problem = problem_of(settings, task, seed)
        if trained:
            load_weights(problem.model, trained)
        with told(f"tasks.{task}.problem"):
            graph = trace(problem.model)
            self.train = Source(problem.train, "train", problem.batch_size)
            first = next(self.train.endlessly(seed))
            self.validation, self.test = (
                in_memory(Source(data, name, problem.batch_size))
                for name, data in (("validation", problem.validation), ("test", problem.test))
            )
            for name, batch in (("train", first), ("validation", self.validation[0]), ("test", self.test[0])):
                check_inputs(problem.model, batch, name)
            copy = rewrite(problem.model, graph, {})
            self.network = Network(copy, task_of(problem, self.validation))
            check_removable(self.network, problem.protect)
            check_computable(self.network, first)
        self.metric = self.network.task.metric
        self.loss = f"1/{self.metric.name}" if self.metric.higher else self.metric.name
        removable = {
            self.network.names[group.index] for group in self.network.graph.groups if group.removable
        }
        self._groups = [name for name in self.network.names if name in removable]
        self._pixels = math.prod(axis or UNKNOWN for axis in problem.model.inputs[0].shape[1:-1])

    def filters(self, widths: dict[str, int]) -> list[int]:
        """Channels that are left of each group that could lose some in the beginning."""
        return [widths.get(name, 0) for name in self._groups]

    def size(self, size: Size | None = None) -> dict[str, Any]:
        """Parameters, and multiply-accumulates for each pixel of the input; by default the network's."""
        counted = size or self.network.graph.cost()
        return {"parameters": counted.parameters, "macs_per_pixel": counted.macs / self._pixels}

    def scores(self, score: float) -> dict[str, float]:
        """The loss, and the metric where that is another, from the metric."""
        if not self.metric.higher:
            return {self.loss: score}
        return {self.loss: 1 / score if score else math.inf, self.metric.name: score}

    def on_validation(self) -> dict[str, float]:
        return self.scores(self.metric.score(self.network.evaluate()))

    def on_test(self, model: keras.Model) -> dict[str, Any]:
        """What a network's only evaluation on the test examples leaves: scores, and the loss's interval."""
        sums = self.metric.compiled(model)(self.test)
        interval = over_photographs(in_blocks(sums))
        return {"test": self.scores(self.metric.score(sums)), "test_interval": interval}


@contextmanager
def told(where: str) -> Iterator[None]:
    """Raise UserError for the library's ValueError, with the key that it is about."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def function_of(settings: Settings, task: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function of a task's problem, and its checked arguments; UserError if there is none like that."""
    chosen = settings.tasks[task]
    function = imported(chosen.problem or "", f"tasks.{task}.problem")
    return function, check_arguments(f"tasks.{task}.arguments", function, chosen.arguments, given=1)


def problem_of(settings: Settings, task: str, seed: int) -> Problem:
    """What the function of a task's problem returns for a seed.

    Keras draws first weights from that seed, too.

    Raises:
        UserError: It fails, or returns something else.
    """
    (function, arguments), where = function_of(settings, task), f"tasks.{task}.problem"
    keras.utils.set_random_seed(seed)
    try:
        found = function(seed, **arguments)
    except UserError:
        raise
    except Exception as error:  # a user's own function, which may raise anything
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise UserError(f"{where}: {settings.tasks[task].problem}: {kind}{reason(error)}") from error
    if not isinstance(found, Problem):
        name = settings.tasks[task].problem
        raise UserError(f"{where}: {name} must return a selfscale.Problem, not {described(found)}")
    return found


def load_weights(model: keras.Model, training: Training) -> None:
    """Give a model the weights of its first session; UserError if they are not there, or another model's."""
    path = training.output / "initial.keras"
    if not path.exists():
        raise UserError(f"{path}: is missing; run `selfscale {training.command}` first")
    try:
        model.load_weights(path)
    except Exception as error:  # whatever zipfile, HDF5 and Keras raise on damaged weights, or others
        message = f"{path}: is damaged, or of another model; run `selfscale {training.command}` again"
        raise UserError(message) from error


def describe(settings: Settings, task: str, out: Path) -> dict[str, Any]:
    """Write the manifest that stands for a problem's targets: the function, its arguments and its code.

    So what was made with other code is made again, and networks of other code are not compared. The code of
    the package is in a file beside it: of another version, networks are made again, but they are compared.

    Raises:
        UserError: There is no such function, or it takes no such arguments.
    """
    function_of(settings, task)
    chosen = settings.tasks[task]
    made = {
        "operator": None,
        "problem": chosen.problem,
        "arguments": chosen.arguments,
        "code": own_code(chosen.problem or "", f"tasks.{task}.problem"),
        "discrete": False,
        "images": "",
    }
    with files.new_folder(out) as folder:
        files.write_json(folder / "manifest.json", made)
        files.write_json(folder / "library.json", {"code": library_code()})
    return made


def refuse(settings: Settings, task: str, what: str) -> None:
    """Raise UserError for what makes no sense with a user's own model."""
    if settings.tasks[task].problem:
        raise UserError(f"{what}: is for operators and targets; {task} is a problem, with a model of its own")
