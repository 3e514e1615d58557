"""The stages that train: all tasks, strategies and seeds of the settings, side by side in processes.

A job that is up to date is not done again, so that another seed or strategy costs no more than
itself. Each job draws from its own seed and has `execution.threads` threads, whatever runs beside
it: the results are the same as one after another.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product, starmap
from typing import NamedTuple, TypeAlias

from selfscale.cli.display import display, tell, workers
from selfscale.cli.loading import import_pipeline
from selfscale.config import Settings
from selfscale.data.prepare import check_targets
from selfscale.errors import UserError
from selfscale.parallel import default_workers, ordered_map
from selfscale.paths import PREPARED, TARGETS, Baseline, Job, Training
from selfscale.pipeline import compare as report
from selfscale.pipeline import made
from selfscale.pipeline.cluster import cluster_map
from selfscale.progress import Listener, Progress, log_to_stderr
from selfscale.stopping import clean_up_when_asked_to_end

Work: TypeAlias = Training | Job | Baseline

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What was done just now, and what was up to date before."""

    done: list[Work]
    up_to_date: list[Work]


def train_all(settings: Settings) -> Outcome:
    # Those of the settings' widths are always there, for the baselines.
    usual = starmap(Training, product(settings.runs.tasks, settings.runs.seeds))
    trainings = dict.fromkeys([*usual, *(job.training for job in report.jobs(settings))])
    return do(settings, {training: made.inputs_of_training(settings, training) for training in trainings})


def minimize_all(settings: Settings) -> Outcome:
    jobs = report.jobs(settings)
    for job in jobs:
        made.require(job.training)
    inputs: dict[Work, str] = {job: made.inputs_of_minimization(settings, job) for job in jobs}
    return do(settings, inputs, settings.minimization.speculative)


def baseline_all(settings: Settings) -> Outcome:
    baselines = list(starmap(Baseline, product(settings.runs.tasks, settings.runs.seeds)))
    steps = {baseline: report.longest(settings, baseline) for baseline in baselines}
    return do(
        settings,
        {baseline: made.inputs_of_baseline(settings, baseline, steps[baseline]) for baseline in baselines},
    )


def do(settings: Settings, inputs: Mapping[Work, str], trials: int = 1) -> Outcome:
    """Do what is not up to date; each piece of work makes so many `trials` at once.

    Raises:
        UserError: some of it failed, but the rest was done all the same; or a task's targets are not those
            of the prepared images, and nothing was done.
    """
    for task in dict.fromkeys(work.task for work in inputs):
        check_targets(PREPARED, TARGETS / task)
    todo = [work for work, digest in inputs.items() if not made.up_to_date(work, digest)]
    outcome = Outcome(todo, [work for work in inputs if work not in todo])
    if not todo:
        log.info("all %s are up to date", len(inputs))
        return outcome
    log.info("%s of %s to do", len(todo), len(inputs))
    problems = [problem for problem in spread(settings, todo, trials) if problem]
    if problems:
        others = f" (and {len(problems) - 1} more failed)" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{others}")
    return outcome


def spread(settings: Settings, todo: Sequence[Work], trials: int) -> Iterator[str | None]:
    """Do the work side by side, and show how far it is; yields what went wrong with each, in its order."""
    execution = settings.execution
    if execution.engine == "ray":
        with display(len(todo)) as shown:
            ended = cluster_map(partial(attempt, settings, tell), todo, execution, trials)
            for work, problem in zip(todo, ended, strict=True):
                Progress(shown).job(work.title).end()  # nothing else is heard from other machines
                yield problem
        return
    count = default_workers(execution, len(todo), trials)
    if count == 1:
        start(settings)  # before the display: TensorFlow's silence would silence it, too
        with display(len(todo)) as shown:
            yield from ordered_map(partial(attempt, settings, shown), todo, count)
    else:
        with display(len(todo)) as shown, workers(shown) as connect:
            yield from ordered_map(partial(attempt, settings, tell), todo, count, connect)


def attempt(settings: Settings, listener: Listener, work: Work) -> str | None:
    """Do one piece of work in this process; what went wrong, if the user can put it right."""
    start(settings)
    progress, problem = Progress(listener).job(work.title), None
    try:
        run(settings, work, progress)
    except UserError as error:
        log.warning("%s: %s", work.command, error)
        problem = str(error)
    progress.end()  # what is interrupted has not ended
    return problem


def start(settings: Settings) -> None:
    """Make this process, which may be a worker's, ready to train; the second time nothing is left to do."""
    log_to_stderr()
    clean_up_when_asked_to_end()
    import_pipeline(settings.execution)


def run(settings: Settings, work: Work, progress: Progress) -> None:
    from selfscale.pipeline import baseline as baseline_module
    from selfscale.pipeline import minimize as minimizing
    from selfscale.pipeline import train as pipeline  # which imports TensorFlow

    if isinstance(work, Training):
        pipeline.train(settings, *work, progress=progress)
    elif isinstance(work, Job):
        minimizing.run_minimization(settings, work, progress=progress)
    else:
        baseline_module.train_baseline(settings, *work, progress=progress)
