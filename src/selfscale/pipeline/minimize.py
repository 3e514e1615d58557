"""The stage that minimizes: a trained network, settings and files in, files and MLflow runs out."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfscale import files, schemas
from selfscale.decisions import TRAIN, DecisionRecord
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.metrics import Evaluation
from selfscale.nn.trainer import Trainer
from selfscale.paths import Job, only_one
from selfscale.pipeline import problem_minimization, resume
from selfscale.pipeline.aims import check_evidence, check_reached, check_target, growing_of, minimization_of
from selfscale.pipeline.execution import Execution, about
from selfscale.pipeline.problems import refuse
from selfscale.pipeline.results import (
    decision_line,
    kept_path,
    save_frontier,
    save_kept,
    save_pictures,
    without_seconds,
    write_result,
)
from selfscale.pipeline.train import train, trainer_for
from selfscale.progress import SILENT, Progress, time_left
from selfscale.reporting.network_picture import Example, examples
from selfscale.search.importance import STRATEGIES
from selfscale.search.loop import Decision, minimize, most_steps
from selfscale.settings import Settings
from selfscale.tracking.points import Clock

log = logging.getLogger(__name__)


def run_minimization(
    settings: Settings, job: Job, *, snapshot: Path | None = None, progress: Progress = SILENT
) -> None:
    """Minimize a trained network; goes on where a killed minimization of the same inputs was.

    `snapshot` goes on from that file instead, whatever images it was made with. What is written
    depends on settings and inputs only (see `write_result`); the times and the MLflow run's key are
    noted apart from it.
    """
    if settings.tasks[job.task].problem:
        return problem_minimization.minimize(settings, job, snapshot, progress)
    growing = growing_of(settings, job)
    minimization = minimization_of(settings, job, growing)
    progress = progress.job(job.title, most=most_steps(minimization, growing))
    strategy = settings.strategies[job.strategy]
    select = STRATEGIES.bind(strategy.select, strategy.arguments, f"strategies.{job.strategy}")
    with only_one(f"minimize-{job.name}") as waited:
        if job.start:
            provide_start(settings, job, progress)
        course = begun(settings, job, snapshot, waited)
        check_target(course.trainer, minimization)
        check_evidence(course.trainer, minimization)
        clock = course.state / "clock.json"
        with Execution(course.state, clock, course.about(settings)) as execution:
            course.save()
            decisions = minimize(
                course.trainer,
                select,
                minimization,
                seed=job.seed,
                initial=course.initial,
                curves=curves_of(job, settings),
                history=course.records,
                growing=growing,
                progress=progress,
            )
            for decision in decisions:
                record_decision(course, execution, decision, progress)
            spent = save_frontier(course.trainer, job, minimization, course.records, course.state, progress)
            write_result(course.trainer, job, course.training, course.records, course.state, spent)
            seconds = sum(record.session.seconds for record in course.records)
            execution.finish(job.output, job.clock, seconds)
        # Only now, with all of it in MLflow: a kill before would leave the run without its end.
        course.save(finished=True)
        clock.unlink()
        start = resume.start_folder(settings, job) if job.start else None
        resume.delete_others(course.state, job, start)
    check_reached(course.trainer, job, minimization)


@dataclass
class Course:
    """A minimization on its way; `trainer` has the network that was kept last.

    `training` is the `training.json` of its initial network, `initial` that network's evaluation,
    `state` is the folder from which it goes on when it is killed, its record in progress, and `shown` are the
    images on which its networks are shown.
    """

    job: Job
    training: dict[str, Any]
    trainer: Trainer
    initial: Evaluation
    records: list[DecisionRecord]
    state: Path
    shown: Sequence[Example]

    def save(self, *, finished: bool = False) -> None:
        files.write_json(self.state / "decisions.json", [without_seconds(record) for record in self.records])
        resume.save(self.state, self.trainer, self.records, finished=finished)

    def about(self, settings: Settings) -> dict[str, Any]:
        """What `run.json` says of it."""
        grows = {"growth", "scaling"} if settings.may_grow(self.job.strategy) else set()
        initial = {
            "score": self.initial.score(self.trainer.loss),
            "filters_kept": self.training["filters"],
            "parameters": self.training["parameters"],
            "macs_per_pixel": self.training["macs_per_pixel"],
        }
        sections = {"network", "training", "evaluation", "minimization"} | grows
        return about(settings.starting_from(self.job.start), self.job, sections, initial=initial)


def begun(settings: Settings, job: Job, snapshot: Path | None, waited: bool) -> Course:
    """A minimization before its next decision: that of `snapshot`, one that was killed, or a new one."""
    training = job.training.read()
    model = files.load_model(job.training.output / "initial.keras", job.training.command)
    trainer = trainer_for(settings, job.task, MaskedNetwork(model))
    initial = trainer.evaluator(trainer.validation)
    state = resume.state_folder(job, resume.inputs_of_minimization(settings, job))
    shown = examples(trainer.validation.images, trainer.validation.targets)
    done = resume.load(snapshot) if snapshot else resume.load_if_wanted(state, waited)
    for folder in ("kept", "pictures", "sessions"):
        if not done:  # but the clock stays: the MLflow run of a killed process is taken up again
            shutil.rmtree(state / folder, ignore_errors=True)
        (state / folder).mkdir(parents=True, exist_ok=True)
    save_pictures(model, trainer.network, state, [], shown)
    if not done:
        return Course(job, training, trainer, initial, [], state, shown)
    if done.finished and not snapshot:  # what another process has just finished is the same execution
        clock = files.read_json(job.clock, job.command, Clock)
        files.write_json(state / "clock.json", {**clock, "status": "RUNNING", "content": "", "shown": False})
    records = list(done.records)
    log.info("%s: going on after decision %s", job.name, len(records))
    trainer = resume.restore(done, trainer, snapshot or state / resume.STATE_FILE)
    if snapshot:
        now = trainer.evaluator(trainer.validation)
        records = resume.judged_anew(records, now.sums[trainer.loss])
    return Course(job, training, trainer, initial, records, state, shown)


def record_decision(course: Course, execution: Execution, decision: Decision, progress: Progress) -> None:
    record, trained, course.trainer, settled, rejected = decision
    course.records.append(record)
    files.write_bytes(course.state / "sessions" / f"{record.number:03}.npz", trained.to_bytes())
    if record.accepted:
        save_kept(course.trainer.network, course.state, course.records, course.shown)
    elif rejected:
        files.save_model(rejected, kept_path(course.state, record.number))
    execution.decided(record.number, record.session.seconds)
    if settled:
        course.save()
    execution.show()
    moment = progress.of(done=sum(record.steps for record in course.records)).now()
    left = time_left(moment) if record.alteration != TRAIN else ""  # which is the last one
    log.info("%s: %s", course.job.name, "; ".join(filter(None, (decision_line(record), left))))


def provide_start(settings: Settings, job: Job, progress: Progress) -> None:
    """Train the network that only this strategy starts from; one that a killed process trained is taken.

    DVC deletes an output before its stage runs, so the network is kept among the state, too.
    """
    kept = resume.start_folder(settings, job)
    if not (kept / "training.json").exists():  # the last file of a training
        train(settings, job.training, kept, progress)
    shutil.copytree(kept, job.training.output, dirs_exist_ok=True)


def scale(settings: Settings, job: Job, progress: Progress = SILENT) -> str:
    """Train the start, if that is not up to date, then minimize; says in a line where it ended."""
    refuse(settings, job.task, "scale")
    growing_of(settings, job)  # what is wrong with the start is told before it is trained
    if not job.start:
        wanted = about(settings, job.training, {"network", "training", "evaluation"})
        record, there = job.training.output / "run.json", job.training.result.exists()
        if not there or files.read_json(record, job.training.command, schemas.Run) != wanted:
            train(settings, job.training, progress=progress)
    run_minimization(settings, job, progress=progress)
    result = job.read()
    test = result["test"]
    return (
        f"{job.task}, seed {job.seed}: {result['macs_per_pixel_initial']:g} -> "
        f"{result['macs_per_pixel']:g} multiply-accumulates per pixel, "
        f"filters {list(result['filters_kept'])}, test {result['loss']} "
        f"{test['initial'][result['loss']]:.4g} -> {test['final'][result['loss']]:.4g}, "
        f"{result['training_steps_initial'] + result['training_steps']} training steps"
    )


def curves_of(job: Job, settings: Settings) -> list[list[float]]:
    """The validation scores in each cycle of the initial network's session."""
    rows = files.read_csv(job.training.output / "curve.csv", job.training.command)
    scores = [float(row["score"]) for row in rows]
    length = settings.training.evaluations
    return [scores[start : start + length] for start in range(0, len(scores), length)]
