"""The training stages of the pipeline: settings and files in, files and MLflow runs out."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import keras
import numpy as np

from selfscale import files, made, registry, report, resume
from selfscale.config import Settings
from selfscale.dataset import Split, load_split
from selfscale.errors import UserError
from selfscale.evaluation import Evaluator
from selfscale.minimization import minimize
from selfscale.network import build, calibrate, filters_per_layer, size
from selfscale.operators import resolve
from selfscale.results import as_rows, decision_line, write_result
from selfscale.selection import bind
from selfscale.store import open_store
from selfscale.switches import SwitchedNetwork
from selfscale.tracking import Dataset, MinimizationRun, TrainingRun
from selfscale.training import Progress, Trainer, first_session
from selfscale.workspace import PREPARED, REPORTS, TARGETS, Job, Training, only_one, store_root

CALIBRATION_IMAGES = 16

log = logging.getLogger(__name__)


def trainer_for(settings: Settings, task: str, network: SwitchedNetwork) -> Trainer:
    """A trainer on the task's prepared images; decisions use at most `evaluation.max_images` of them."""
    validation = load_split(PREPARED, TARGETS / task, "validation")
    some = slice(settings.evaluation.max_images)
    return Trainer(
        network,
        load_split(PREPARED, TARGETS / task, "train"),
        Split(validation.images[some], validation.targets[some]),
        loss=settings.tasks[task].loss,
        settings=settings.training,
        evaluator=Evaluator(
            network.graph,
            discrete=resolve(settings.tasks[task].operator).discrete,
            threshold=settings.evaluation.threshold,
        ),
    )


def train(settings: Settings, task: str, seed: int, progress: Progress | None = None) -> None:
    """The long first session of one network; writes `initial.keras`, `training.json` and `curve.csv`.

    A network that dies is restarted with fresh weights, as often as `training.first.restarts` says.

    Raises:
        UserError: it died each time.
    """
    training = Training(task, seed)
    with only_one(f"train-{training.name}"):
        started = time.time()
        # What may be missing is found before the work.
        test_split = load_split(PREPARED, TARGETS / task, "test")
        client = open_store(store_root())
        for attempt in range(settings.training.first.restarts + 1):
            model = new_network(settings, task, seed, attempt)
            trainer = trainer_for(settings, task, SwitchedNetwork(model))
            session, validation = first_session(trainer, seed, attempt, progress)
            if session.ended in ("completed", "stagnated"):
                break
            log.warning("%s, seed %s: start %s ended %s", task, seed, attempt + 1, session.ended)
        else:
            raise UserError(
                f"{task}, seed {seed}: the network is {session.ended} after each of {attempt + 1} starts; "
                "lower training.learning_rate or change network.init_deviation"
            )
        test = trainer.evaluator(test_split)
        result = {
            "task": task,
            "seed": seed,
            "starts": attempt + 1,
            "ended": session.ended,
            "training_steps": session.steps,
            "filters": filters_per_layer(model),
            **size(model)._asdict(),
            "validation": validation.scores(),
            "test": test.scores(),
        }
        out = training.output
        files.save_model(model, out / "initial.keras")
        files.write_json(out / "training.json", result)
        files.write_csv(out / "curve.csv", ("step", "loss", "score"), as_rows(session))
        with TrainingRun(
            client,
            task=task,
            seed=seed,
            settings=settings.model_dump(),
            dataset=dataset(),
            started=started,
        ) as run:
            run.finish(session, result, sorted(out.iterdir()))
        made.note(training, made.inputs_of_training(settings, training))
        score = validation.score(trainer.loss)
        log.info(
            "%s, seed %s: %s after %s steps, score %.5g", task, seed, session.ended, session.steps, score
        )


def new_network(settings: Settings, task: str, seed: int, attempt: int) -> keras.Model:
    """Fresh weights for each seed and attempt, calibrated to the first training images."""
    chosen = settings.network
    model = build(
        chosen.widths,
        kernel=chosen.kernel,
        mean=chosen.init_mean,
        deviation=chosen.init_deviation,
        seed=(seed, attempt),
    )
    split = load_split(PREPARED, TARGETS / task, "train")
    images, targets = split.images[:CALIBRATION_IMAGES], split.targets[:CALIBRATION_IMAGES]
    calibrate(model, images / np.float32(255), float(targets.mean(dtype=np.float64)))
    return model


def run_minimization(
    settings: Settings, job: Job, *, snapshot: Path | None = None, progress: Progress | None = None
) -> None:
    """Minimize a trained network; goes on where a killed minimization of the same inputs was.

    `snapshot` goes on from that file instead, whatever images it was made with. What is written
    depends on settings and inputs only (see `write_result`); the times and the MLflow run's id are
    noted apart from it.
    """
    folder, trained_by = job.training.output, job.training.command
    training = files.read_json(folder / "training.json", trained_by)
    network = SwitchedNetwork(files.load_model(folder / "initial.keras", trained_by))
    trainer = trainer_for(settings, job.task, network)
    initial = trainer.evaluator(trainer.validation)
    chosen = settings.strategies[job.strategy]
    # What was made from other images is not what these settings would make.
    inputs = str(snapshot) if snapshot else made.inputs_of_minimization(settings, job)
    state = resume.state_path(job, made.inputs_of_minimization(settings, job))
    with only_one(f"minimize-{job.name}") as waited:
        done = resume.load(snapshot) if snapshot else resume.load_if_wanted(state, waited)
        records = list(done.records) if done else []
        if done:
            log.info("%s: going on after decision %s", job.name, len(records))
            trainer = resume.restore(done, trainer, snapshot or state)
        if snapshot:
            kept = trainer.evaluator(trainer.validation)
            records = resume.judged_anew(records, kept.sums[trainer.loss])
        with MinimizationRun(
            open_store(store_root()),
            task=job.task,
            strategy=job.strategy,
            seed=job.seed,
            settings=settings.model_dump(),
            dataset=dataset(),
            run_id=done.run_id if done else None,
        ) as run:
            resume.save(state, trainer, run.run_id, records)
            for record in records:
                run.decision(record)  # logs only what the run lacks: the store may have been deleted
            decisions = minimize(
                trainer,
                bind(chosen.select, chosen.arguments),
                settings.minimization,
                seed=job.seed,
                initial=initial,
                curves=curves_of(job, settings),
                history=records,
                progress=progress,
            )
            for record, trained, kept_by in decisions:
                trainer = kept_by
                checkpoint = state.with_name(f"{job.name}-session.npz")
                trained.save(checkpoint)
                # Logged before it is saved: what is logged twice after a kill is recognised.
                run.decision(record, checkpoint)
                checkpoint.unlink()
                records.append(record)
                resume.save(state, trainer, run.run_id, records)
                log.info("%s: %s", job.name, decision_line(record))
            result = write_result(trainer, settings, job, training, records)
            seconds = sum(record.session.seconds for record in records)
            made.note(job, inputs, run_id=run.run_id, seconds=seconds)
            run.finish(result, sorted(job.output.iterdir()))
            resume.save(state, trainer, run.run_id, records, finished=True)
            resume.delete_others(state, job)


def curves_of(job: Job, settings: Settings) -> list[list[float]]:
    """The validation scores in each cycle of the initial network's session."""
    rows = files.read_csv(job.training.output / "curve.csv", f"train {job.task} --seed {job.seed}")
    scores = [float(row["score"]) for row in rows]
    length = settings.training.evaluations
    return [scores[start : start + length] for start in range(0, len(scores), length)]


def dataset() -> Dataset:
    manifest = files.read_json(PREPARED / "manifest.json", "prepare")
    return Dataset(manifest["source"], manifest["fingerprint"])


def register(settings: Settings, task: str) -> int:
    """Register the task's best network of the comparison; returns the version's number."""
    result = report.best(files.read_json(REPORTS / "comparison.json", "compare"), task)
    job = Job(task, result["strategy"], result["seed"])
    found = made.noted(job)
    run_id = found["run_id"] if found else None
    return registry.register(open_store(store_root()), task, job.output / "compact.keras", result, run_id)
