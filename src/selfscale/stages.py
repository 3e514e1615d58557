"""The stages that train: all tasks, strategies and seeds of the settings, side by side in processes.

A job that is up to date is not done again, so that another seed or strategy costs no more than
itself. Each job draws from its own seed and has `execution.threads` threads, whatever runs beside
it: the results are the same as one after another.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product, starmap
from typing import TypeAlias

from selfscale import cli, made, report
from selfscale.cluster import cluster_map
from selfscale.config import Execution, Settings
from selfscale.errors import UserError
from selfscale.parallel import default_workers, ordered_map, progress
from selfscale.workspace import Control, Job, Training

Work: TypeAlias = Training | Job | Control

log = logging.getLogger(__name__)


def train_all(settings: Settings) -> None:
    trainings = list(starmap(Training, product(settings.runs.tasks, settings.runs.seeds)))
    do(settings, {training: made.inputs_of_training(settings, training) for training in trainings})


def minimize_all(settings: Settings) -> None:
    jobs = report.jobs(settings.runs)
    for job in jobs:
        made.require(job.training)
    do(settings, {job: made.inputs_of_minimization(settings, job) for job in jobs})


def control_all(settings: Settings) -> None:
    controls = list(starmap(Control, product(settings.runs.tasks, settings.runs.seeds)))
    steps = {control: report.longest(settings, control) for control in controls}
    do(settings, {control: made.inputs_of_control(settings, control, steps[control]) for control in controls})


def do(settings: Settings, inputs: dict[Work, str]) -> None:
    """Do what is not up to date.

    Raises:
        UserError: some of it failed; the rest was done all the same.
    """
    todo = [work for work, digest in inputs.items() if not made.up_to_date(work, digest)]
    if not todo:
        return log.info("all %s are up to date", len(inputs))
    log.info("%s of %s to do", len(todo), len(inputs))
    ended = spread(partial(attempt, settings), todo, settings.execution)
    problems = [problem for problem in progress(ended, "training", len(todo)) if problem]
    if problems:
        others = f" (and {len(problems) - 1} more failed)" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{others}")


def spread(
    function: Callable[[Work], str | None], todo: Sequence[Work], execution: Execution
) -> Iterator[str | None]:
    if execution.engine == "ray":
        return cluster_map(function, todo, execution)
    return ordered_map(function, todo, default_workers(execution, len(todo)))


def attempt(settings: Settings, work: Work) -> str | None:
    """Do one piece of work in this process; what went wrong, if the user can put it right."""
    start(settings)
    try:
        run(settings, work)
    except UserError as error:
        log.warning("%s: %s", work.command, error)
        return str(error)
    return None


def start(settings: Settings) -> None:
    """Make this process, which may be a worker's, ready to train; the second time nothing is left to do."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    cli.import_pipeline(settings.execution)


def run(settings: Settings, work: Work) -> None:
    from selfscale import control, pipeline  # which import TensorFlow

    if isinstance(work, Training):
        pipeline.train(settings, *work)
    elif isinstance(work, Job):
        pipeline.run_minimization(settings, work)
    else:
        control.train_control(settings, *work)
