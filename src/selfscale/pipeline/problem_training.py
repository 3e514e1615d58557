"""Training of a problem's network: its first session, and the baseline."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np

from selfscale import files
from selfscale.config import FirstSession
from selfscale.decisions import SessionRecord
from selfscale.errors import counted
from selfscale.library.loop import in_blocks
from selfscale.library.minimize import reference_of
from selfscale.nn.ratios import quotient
from selfscale.paths import Baseline, Training, only_one
from selfscale.pipeline.execution import Execution, about
from selfscale.pipeline.problems import Posed, refuse, told
from selfscale.pipeline.results import as_rows
from selfscale.progress import Progress
from selfscale.schemas import Budget, Trained
from selfscale.search.acceptance import change_bounds
from selfscale.search.first_session import CONFIDENCE
from selfscale.settings import Settings

# What of `training.first` counts here.
FIRST = {"steps", "max_cycles", "min_gain"}
SCORES = ("validation", "test", "test_interval")

log = logging.getLogger(__name__)


def train(settings: Settings, training: Training, progress: Progress) -> None:
    """Train a problem's network, and write what the first session of any network leaves.

    In cycles of `training.first.steps` steps, each with a warm-up and a decay of the optimizer's learning
    rate, until two of them gain less than `training.first.min_gain`, or `training.first.max_cycles` are over.
    The best network on the validation examples is kept, the one that came among them.
    """
    task, seed = training.task, training.seed
    if training.start:
        refuse(settings, task, "--start")
    with only_one(f"train-{training.name}"):
        posed = Posed(settings, task, seed)
        described = about(settings, training, {"training": {"first": FIRST}})
        with Execution(training.output, training.clock, described) as execution:
            training.result.unlink(missing_ok=True)  # it says that the record is whole
            with told(f"tasks.{task}.problem"):
                session = first_session(posed, settings.training.first, seed, progress.job(training.title))
                reference_of(posed.network)
            model = posed.problem.model
            model.set_weights(posed.network.model.get_weights())
            result = {
                "task": task,
                "seed": seed,
                "loss": posed.loss,
                "ended": session.ended,
                "training_steps": session.steps,
                "filters": posed.filters(posed.network.widths),
                **posed.size(),
                "validation": posed.on_validation(),
                **posed.on_test(model),
            }
            files.save_model(model, training.output / "initial.keras")
            files.write_csv(training.output / "curve.csv", ("step", "loss", "score"), as_rows(session))
            files.write_json(training.result, result)  # the last one: it says that all is there
            execution.finish(training.output, training.clock, session.seconds)
        words, metric = f"{session.ended} after {counted(session.steps, 'step')}", posed.metric.name
        score = result["validation"][metric]
        log.info("%s, seed %s: %s, %s %.5g on validation", task, seed, words, metric, score)


class Course:
    """A network's sessions, one after another; its best state on the validation examples is kept."""

    def __init__(self, posed: Posed, seed: int, progress: Progress) -> None:
        self._network, self._source = posed.network, posed.train
        self._batches = posed.train.endlessly(seed)
        self._progress, self._started = progress, time.perf_counter()
        self._best, self._state = self._network.evaluate(), self._network.model.get_weights()
        self._losses: list[tuple[int, float]] = []
        self._scores: list[tuple[int, float]] = []
        self.steps, self.improved = 0, False

    def train(self, steps: int, seed: Sequence[int]) -> float:
        """Train for a session; return the lower bound of what it gained, NaN for one that is not finite."""
        told = self._progress.after(self.steps)
        told.begin(steps)
        loss, sums = self._network.trainer.session(self._batches, steps, seed), self._network.evaluate()
        self.steps += steps
        score = float(quotient(sums.sum(axis=0)))
        told.evaluated(steps, self._network.task.metric.score(sums))
        self._losses.append((self.steps, loss))
        self._scores.append((self.steps, score))
        if not (np.isfinite(loss) and np.isfinite(sums).all() and self._network.finite()):
            self._source.check_finite(self.steps)
            return float("nan")
        gain = -change_bounds(in_blocks(sums), in_blocks(self._best), CONFIDENCE)[1]
        if score < quotient(self._best.sum(axis=0)):
            self._best, self._state, self.improved = sums, self._network.model.get_weights(), True
        return gain

    def end(self, ended: str) -> SessionRecord:
        """Bring back the best state; return all sessions as one."""
        self._network.model.set_weights(self._state)
        seconds = time.perf_counter() - self._started
        return SessionRecord(self.steps, tuple(self._losses), tuple(self._scores), ended, seconds)


def first_session(posed: Posed, settings: FirstSession, seed: int, progress: Progress) -> SessionRecord:
    """Train in cycles until two in a row gain too little, or one is not finite."""
    course, idle = Course(posed, seed, progress.of(most=settings.max_cycles * settings.steps)), 0
    for cycle in range(settings.max_cycles):
        gain = course.train(settings.steps, (seed, 0, cycle))
        if np.isnan(gain) and not course.improved:
            raise ValueError("the loss is not a finite number; lower the learning rate of the optimizer")
        if np.isnan(gain):
            return course.end("non-finite")
        idle = idle + 1 if gain < settings.min_gain else 0
        if idle == 2:
            return course.end("stagnated")
    return course.end("completed")


def train_baseline(settings: Settings, baseline: Baseline, progress: Progress) -> None:
    """Train the network of the first session on, in one session, and write what any baseline leaves."""
    task, seed = baseline.task, baseline.seed
    with only_one(f"baseline-{baseline.name}"):
        steps = files.read_json(baseline.budget, "budget", Budget)["steps"]
        training = Training(task, seed)
        before = files.read_json(training.result, training.command, Trained)
        posed = Posed(settings, task, seed, training)
        with Execution(baseline.output, baseline.clock, about(settings, baseline, {})) as execution:
            baseline.result.unlink(missing_ok=True)  # it says that the record is whole
            course = Course(posed, seed, progress.job(baseline.title, most=steps, exact=True))
            lost = np.isnan(course.train(steps, (seed, 0, 0, 1)))
            session = course.end("non-finite" if lost else "completed")
            kept = before
            if course.improved:
                kept = {"validation": posed.on_validation(), **posed.on_test(posed.network.model)}
            result = {
                "task": task,
                "seed": seed,
                "loss": posed.loss,
                "steps": steps,
                "ended": session.ended,
                "kept": "trained-on" if course.improved else "initial",
                "filters_kept": posed.filters(posed.network.widths),
                **posed.size(),
                **{key: {"initial": before[key], "final": kept[key]} for key in SCORES},
                "decisions": 0,
                "training_steps": session.steps,
            }
            files.write_csv(baseline.output / "curve.csv", ("step", "loss", "score"), as_rows(session))
            files.write_json(baseline.result, result)
            execution.finish(baseline.output, baseline.clock, session.seconds)
        log.info(
            "%s, seed %s: %s steps, kept the %s network, %s %.5g on test",
            *(task, seed, session.steps, result["kept"]),
            *(posed.metric.name, kept["test"][posed.metric.name]),
        )
