"""The training stages of the pipeline: settings and files in, files and MLflow runs out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from selfscale import files, made, registry, report, resume, statistics
from selfscale.card import card
from selfscale.champions import Standing
from selfscale.config import Minimization, Settings
from selfscale.dataset import Split, load_split
from selfscale.delivery import Recorder, deliver_abandoned
from selfscale.devices import check_batch, check_mixed_precision, jit_compile, visible_gpus
from selfscale.errors import UserError
from selfscale.evaluation import Evaluation, Evaluator
from selfscale.events import SILENT, Progress
from selfscale.feeding import feed_for
from selfscale.growth_selection import GROWTH_STRATEGIES
from selfscale.growth_trials import Growing
from selfscale.losses import without_skill
from selfscale.minimization import minimize, most_steps
from selfscale.network import build, calibrate, filters_per_layer, size
from selfscale.overview import examples
from selfscale.picking import picked
from selfscale.records import TRAIN, SessionRecord
from selfscale.results import as_rows, decision_line, pictures, save_kept, save_pictures, write_result
from selfscale.selection import STRATEGIES
from selfscale.store import find_run, open_store
from selfscale.switches import SwitchedNetwork
from selfscale.targets import check_loss
from selfscale.tracking import Dataset
from selfscale.training import Compilation, Trainer, first_session
from selfscale.watching import time_left
from selfscale.workspace import PREPARED, REPORTS, TARGETS, Job, Training, only_one, store_root

CALIBRATION_IMAGES = 16

log = logging.getLogger(__name__)


def trainer_for(settings: Settings, task: str, network: SwitchedNetwork) -> Trainer:
    """A trainer on the task's prepared images; decisions use at most `evaluation.max_images` of them."""
    validation = load_split(PREPARED, TARGETS / task, "validation")
    some = slice(settings.evaluation.max_images)
    half = settings.execution.mixed_precision
    train = load_split(PREPARED, TARGETS / task, "train")
    check_loss(task, settings.tasks[task], discrete=train.discrete)
    side = min(settings.training.crop or train.images.shape[1], train.images.shape[1])
    check_batch(settings.training.batch, side, sum(block.filters for block in network.blocks))
    trainer = Trainer(
        network,
        train,
        Split(validation.images[some], validation.targets[some]),
        loss=settings.tasks[task].loss,
        settings=settings.training,
        evaluator=Evaluator(
            network.graph,
            discrete=train.discrete,
            threshold=settings.evaluation.threshold,
        ),
        compilation=Compilation(half=half),
        feed=feed_for(train, settings.training.crop, "GPU:0" if visible_gpus() else None),
    )
    if half:
        check_mixed_precision(network.graph, trainer.evaluator, trainer.validation, trainer.loss)
    if jit_compile(lambda xla: trainer.of(compilation=Compilation(xla, half)).idle):
        return trainer.of(compilation=Compilation(True, half))
    return trainer


def train(
    settings: Settings,
    task: str,
    seed: int,
    start: tuple[int, ...] = (),
    progress: Progress = SILENT,
) -> None:
    """The long first session of one network; writes `initial.keras`, `training.json` and `curve.csv`.

    A network that dies is restarted with fresh weights, as often as `training.first.restarts` says.

    Raises:
        UserError: it died each time.
    """
    training = Training(task, seed, start)
    settings = settings.starting_from(start)
    with only_one(f"train-{training.name}"):
        # What may be missing is found before the work.
        test_split = load_split(PREPARED, TARGETS / task, "test")
        with recorder(settings, "training", task=task, seed=seed) as run:
            (model, starts, session, validation), steps = living_network(settings, training, progress)
            test = trainer_for(settings, task, SwitchedNetwork(model)).evaluator(test_split)
            result = {
                "task": task,
                "seed": seed,
                "starts": starts,
                "ended": session.ended,
                "training_steps": steps,
                "filters": filters_per_layer(model),
                **size(model)._asdict(),
                "validation": validation.scores(),
                "test": test.scores(),
            }
            out = training.output
            files.save_model(model, out / "initial.keras")
            files.write_json(out / "training.json", result)
            files.write_csv(out / "curve.csv", ("step", "loss", "score"), as_rows(session))
            made.note(training, made.inputs_of_training(settings, training))
            ended = f"{session.ended} after {session.steps} steps"
            system = run.system(session.seconds)
            run.record(
                "finish", sorted(out.iterdir()), session=session, result=result, note=ended, system=system
            )
        score = validation.score(settings.tasks[task].loss)
        log.info("%s, seed %s: %s, score %.5g", task, seed, ended, score)


class Started(NamedTuple):
    """A network after its first session, which was that of the n-th start."""

    model: keras.Model
    start: int
    session: SessionRecord
    validation: Evaluation


def living_network(settings: Settings, training: Training, progress: Progress) -> tuple[Started, int]:
    """A network after its first session, and the training steps of all starts that it took.

    A network that died starts afresh, and so does one that has learnt nothing: hardly better, by less than
    `training.first.min_gain`, than an output that is the same everywhere, as a single filter may be
    that puts out 1 almost everywhere, where a soft F1 has no gradient. Of those the best one is taken
    if no start does better: the task may be such.
    """
    (task, seed, _), first = training, settings.training.first
    found: list[Started] = []
    steps = 0
    for attempt in range(first.restarts + 1):
        model = new_network(settings, task, seed, attempt)
        trainer = trainer_for(settings, task, SwitchedNetwork(model))
        session, validation = first_session(trainer, seed, attempt, progress.job(training.title))
        ended, steps = session.ended, steps + session.steps
        if ended in ("completed", "stagnated"):
            found.append(Started(model, attempt + 1, session, validation))
            constant = without_skill(trainer.loss, trainer.validation.targets)
            skill = 1 - validation.score(trainer.loss) / constant if constant else 1.0
            if skill >= first.min_gain:
                return found[-1], steps
            ended = f"hardly better ({skill:.1%}) than the same output everywhere"
        log.warning("%s, seed %s: start %s ended %s", task, seed, attempt + 1, ended)
    if found:
        return min(found, key=lambda one: one.validation.score(settings.tasks[task].loss)), steps
    raise UserError(
        f"{task}, seed {seed}: the network is {session.ended} after each of {attempt + 1} starts; "
        "lower training.learning_rate or change network.init_deviation"
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
    settings: Settings, job: Job, *, snapshot: Path | None = None, progress: Progress = SILENT
) -> None:
    """Minimize a trained network; goes on where a killed minimization of the same inputs was.

    `snapshot` goes on from that file instead, whatever images it was made with. What is written
    depends on settings and inputs only (see `write_result`); the times and the MLflow run's key are
    noted apart from it.
    """
    folder, trained_by = job.training.output, job.training.command
    training = files.read_json(folder / "training.json", trained_by)
    network = SwitchedNetwork(files.load_model(folder / "initial.keras", trained_by))
    trainer = trainer_for(settings, job.task, network)
    initial = trainer.evaluator(trainer.validation)
    chosen = settings.strategies[job.strategy]
    growing = growing_of(settings, job)
    minimization = minimization_of(settings, job, growing)
    progress = progress.job(job.title, most=most_steps(minimization, growing))
    # What was made from other images is not what these settings would make.
    inputs = str(snapshot) if snapshot else made.inputs_of_minimization(settings, job)
    state = resume.state_path(job, made.inputs_of_minimization(settings, job))
    kept = resume.kept_folder(state)
    with only_one(f"minimize-{job.name}") as waited:
        done = resume.load(snapshot) if snapshot else resume.load_if_wanted(state, waited)
        records = list(done.records) if done else []
        shown = examples(trainer.validation.images, trainer.validation.targets)
        pictured = save_pictures(network.model, network, kept, [], shown)
        begun = {"filters_kept": network.filters_kept, **network.size()._asdict()}
        if done:
            log.info("%s: going on after decision %s", job.name, len(records))
            trainer = resume.restore(done, trainer, snapshot or state)
        if snapshot:
            now = trainer.evaluator(trainer.validation)
            records = resume.judged_anew(records, now.sums[trainer.loss])
        key = done.key if done else None
        tags = {"task": job.task, "strategy": job.strategy, "seed": job.seed}
        with recorder(settings.starting_from(job.start), "minimization", key=key, **tags) as run:
            resume.save(state, trainer, run.key, records)
            # What the run has already, it passes over; the store may have been deleted.
            run.record("initial", pictured, score=initial.score(trainer.loss), **begun)
            for record in records:
                run.record("decision", record=record)
                if record.accepted:
                    run.record("pictures", pictures(kept, record.number), number=record.number)
            decisions = minimize(
                trainer,
                STRATEGIES.bind(chosen.select, chosen.arguments, f"strategies.{job.strategy}"),
                minimization,
                seed=job.seed,
                initial=initial,
                curves=curves_of(job, settings),
                history=records,
                growing=growing,
                progress=progress,
            )
            for record, trained, kept_by, settled in decisions:
                trainer = kept_by
                checkpoint = state.with_name(f"{job.name}-session.npz")
                trained.save(checkpoint)
                # Recorded before it is saved: what is recorded twice after a kill is recognised.
                system = run.system(record.session.seconds)
                run.record("decision", [checkpoint], record=record, system=system)
                checkpoint.unlink()
                records.append(record)
                if record.accepted:
                    pictured = save_kept(trainer.network, kept, records, shown)
                    run.record("pictures", pictured, number=record.number)
                if settled:
                    resume.save(state, trainer, run.key, records)
                moment = progress.of(done=sum(record.steps for record in records)).now()
                left = time_left(moment) if record.alteration != TRAIN else ""  # which is the last one
                log.info("%s: %s", job.name, "; ".join(filter(None, (decision_line(record), left))))
            result = write_result(trainer, job, training, records, kept)
            seconds = sum(record.session.seconds for record in records)
            made.note(job, inputs, key=run.key, seconds=seconds)
            written = sorted(path for path in job.output.iterdir() if path.is_file())
            run.record("finish", written, result=result)
            resume.save(state, trainer, run.key, records, finished=True)
            resume.delete_others(state, job)


def scale(settings: Settings, job: Job, progress: Progress = SILENT) -> str:
    """Train the start, if that is not up to date, then minimize; says in a line where it ended."""
    growing_of(settings, job)  # what is wrong with the start is told before it is trained
    inputs = made.inputs_of_training(settings, job.training)
    if not made.up_to_date(job.training, inputs):
        train(settings, *job.training, progress)
    run_minimization(settings, job, progress=progress)
    result = files.read_json(job.output / "result.json", job.command)
    test = result["test"]
    return (
        f"{job.task}, seed {job.seed}: {result['macs_per_pixel_initial']:g} -> "
        f"{result['macs_per_pixel']:g} multiply-accumulates per pixel, "
        f"filters {list(result['filters_kept'])}, test {result['loss']} "
        f"{test['initial'][result['loss']]:.4g} -> {test['final'][result['loss']]:.4g}, "
        f"{result['training_steps_initial'] + result['training_steps']} training steps"
    )


def growing_of(settings: Settings, job: Job) -> Growing | None:
    """How the minimization grows its network first; None if it does not.

    Raises:
        UserError: the start is not within the limits of growth.
    """
    scaling, growth = settings.scaling, settings.growth
    chosen = settings.starting_from(job.start).network
    start = size(build(chosen.widths, kernel=chosen.kernel))
    mode = scaling.mode_from(start.macs_per_pixel)
    if not settings.strategies[job.strategy].scaling or mode == "shrink":
        return None
    if not scaling.allows(*start):
        raise UserError(
            f"scaling: the start has {start.parameters} parameters and {start.macs_per_pixel:g} "
            "multiply-accumulates per pixel, which max_parameters or max_macs_per_pixel forbids; raise "
            "it, or start from fewer filters"
        )
    select = GROWTH_STRATEGIES.bind(growth.select, growth.arguments, "growth")
    return Growing(growth, scaling, select, mode == "both")


def minimization_of(settings: Settings, job: Job, growing: Growing | None) -> Minimization:
    """How it removes: a scaling strategy that does not grow may take as many steps more as growth might."""
    chosen = settings.minimization
    if growing or not settings.strategies[job.strategy].scaling or chosen.limits.steps is None:
        return chosen
    steps = chosen.limits.steps + settings.scaling.max_steps
    return chosen.model_copy(update={"limits": chosen.limits.model_copy(update={"steps": steps})})


def curves_of(job: Job, settings: Settings) -> list[list[float]]:
    """The validation scores in each cycle of the initial network's session."""
    rows = files.read_csv(job.training.output / "curve.csv", job.training.command)
    scores = [float(row["score"]) for row in rows]
    length = settings.training.evaluations
    return [scores[start : start + length] for start in range(0, len(scores), length)]


def recorder(settings: Settings, kind: str, **run: Any) -> Recorder:
    """Records a run of that kind on the prepared images, for the project's MLflow store."""
    manifest = files.read_json(PREPARED / "manifest.json", "prepare")
    dataset = Dataset(manifest["source"], manifest["fingerprint"])
    return Recorder(store_root(), kind, settings=settings.model_dump(), dataset=dataset, **run)


def register(settings: Settings, task: str) -> Standing:
    """Register the network that was picked, or that the rule of `registry` chooses.

    Returns what became of the alias `champion`.
    """
    rule, comparison = settings.registry, files.read_json(REPORTS / "comparison.json", "compare")
    chosen = picked(comparison["results"], task)
    result = chosen[0] if chosen else report.choose(comparison, task, rule)
    job = Job(task, result["strategy"], result["seed"])
    made_of = TARGETS / task / "manifest.json"
    targets = files.read_json(made_of, f"targets {task}")
    if files.content(made_of) != result.get("targets"):
        raise UserError(
            f"{made_of}: is not what {job.name} was made from; "
            "run `selfscale train`, `minimize` and `compare` again"
        )
    if not chosen and not report.within(result, rule):
        log.warning("%s: no network is within registry.tolerance; the best test score is taken", task)
    prepared = files.read_json(PREPARED / "manifest.json", "prepare")
    model = chosen[1] if chosen else job.output / "compact.keras"
    network = files.load_model(model, job.command)
    evaluator = Evaluator(network, discrete=targets["discrete"])
    tested = evaluator(load_split(PREPARED, TARGETS / task, "test"), (result["loss"],))
    interval = statistics.over_images(tested.sums[result["loss"]])
    words = card(result, prepared, targets, rule, interval, picked=chosen is not None)
    found = made.noted(job)
    client = open_store(store_root())
    deliver_abandoned(client, store_root())
    run = find_run(client, task, found["key"], {"kind": "minimization"}) if found else None
    return registry.register(client, task, model, result, words, run.info.run_id if run else None)
