"""The training stages of the pipeline: settings and files in, files and MLflow runs out."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from selfscale import __version__, compaction, files, registry, report, resume
from selfscale.config import Settings
from selfscale.dataset import Split, load_split
from selfscale.errors import UserError
from selfscale.evaluation import Evaluator
from selfscale.minimization import minimize
from selfscale.network import build, filters_per_layer, size
from selfscale.operators import resolve
from selfscale.records import DecisionRecord, SessionRecord
from selfscale.selection import bind
from selfscale.store import open_store
from selfscale.switches import SwitchedNetwork
from selfscale.tracking import MinimizationRun, TrainingRun
from selfscale.training import Progress, Trainer, first_session
from selfscale.workspace import PREPARED, REPORTS, STATE, TARGETS, minimized_folder, only_one, trained_folder

log = logging.getLogger(__name__)


def trainer_for(settings: Settings, task: str, network: SwitchedNetwork) -> Trainer:
    """A trainer on the task's prepared images; validation uses at most `evaluation.max_images`."""
    chosen, targets = settings.tasks[task], TARGETS / task
    validation = load_split(PREPARED, targets, "validation")
    some = slice(settings.evaluation.max_images)
    return Trainer(
        network,
        load_split(PREPARED, targets, "train"),
        Split(validation.images[some], validation.targets[some]),
        loss=chosen.loss,
        settings=settings.training,
        evaluator=Evaluator(
            network.graph,
            discrete=resolve(chosen.operator).discrete,
            threshold=settings.evaluation.threshold,
        ),
    )


def train(settings: Settings, task: str, seed: int, progress: Progress | None = None) -> None:
    """The long first session of one network; writes `initial.keras`, `training.json` and `curve.csv`.

    A network that dies is restarted with fresh weights, as often as `training.first.restarts` says.

    Raises:
        UserError: it died each time.
    """
    out = trained_folder(task, seed)
    with only_one(f"train-{task}-seed-{seed}"):
        started = time.time()
        for attempt in range(settings.training.first.restarts + 1):
            model = build(
                settings.network.widths,
                kernel=settings.network.kernel,
                mean=settings.network.init_mean,
                deviation=settings.network.init_deviation,
                output_bias=settings.network.output_bias,
                seed=(seed, attempt),
            )
            trainer = trainer_for(settings, task, SwitchedNetwork(model))
            session, validation = first_session(trainer, seed, attempt, progress)
            if session.ended in ("completed", "stagnated"):
                break
            log.warning("%s, seed %s, attempt %s: the network is %s", task, seed, attempt + 1, session.ended)
        else:
            raise UserError(
                f"{task}, seed {seed}: the network is {session.ended} after each of {attempt + 1} starts; "
                "lower training.learning_rate or change network.init_deviation"
            )
        test = trainer.evaluate_split(load_split(PREPARED, TARGETS / task, "test"))
        result = {
            "task": task,
            "seed": seed,
            "attempts": attempt + 1,
            "ended": session.ended,
            "training_steps": session.steps,
            "filters": filters_per_layer(model),
            **size(model)._asdict(),
            "validation": validation.scores(),
            "test": test.scores(),
        }
        files.save_model(model, out / "initial.keras")
        files.write_json(out / "training.json", result)
        files.write_csv(out / "curve.csv", ("step", "loss", "score"), session_rows(session))
        run = TrainingRun(
            open_store(Path.cwd()), task=task, seed=seed, settings=settings.model_dump(), started=started
        )
        run.finish(session, result, [out / "initial.keras", out / "training.json"])
        score = validation.score(trainer.loss)
        log.info(
            "%s, seed %s: %s after %s steps, score %.5g", task, seed, session.ended, session.steps, score
        )


def run_minimization(
    settings: Settings,
    task: str,
    strategy: str,
    seed: int,
    *,
    snapshot: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Minimize a trained network; goes on where a killed minimization of the same inputs was.

    `snapshot` goes on from that file instead, whatever its inputs were. Writes `compact.keras`,
    `removed_filters.npy`, `decisions.json`, `curve.csv` and `result.json`, which depend on settings
    and inputs only; beside them, in `.selfscale`, the times and the MLflow run's id.
    """
    name = f"minimize-{task}-{strategy}-seed-{seed}"
    made_by = f"train {task} --seed {seed}"
    source = trained_folder(task, seed)
    training = files.read_json(source / "training.json", made_by)
    trainer = trainer_for(
        settings, task, SwitchedNetwork(files.load_model(source / "initial.keras", made_by))
    )
    initial = trainer.evaluate_split(trainer.validation)
    state = resume.state_path(name, minimization_inputs(settings, task, strategy, seed))
    with only_one(name) as waited:
        done = resume.load(snapshot) if snapshot else resume.load_if_wanted(state, waited)
        records = list(done.records) if done else []
        if done:
            log.info("%s: going on after decision %s", name, len(records))
            done.snapshot.restore(trainer)
        run = MinimizationRun(
            open_store(Path.cwd()),
            task=task,
            strategy=strategy,
            seed=seed,
            settings=settings.model_dump(),
            run_id=done.run_id if done else None,
        )
        with run:
            started = time.time()
            chosen = settings.strategies[strategy]
            for record, trained in minimize(
                trainer,
                bind(chosen.select, chosen.arguments),
                settings.minimization,
                seed=seed,
                reference=initial,
                history=records,
                progress=progress,
            ):
                checkpoint = state.with_name(f"{name}-checkpoint.npz")
                trained.save(checkpoint)
                run.decision(record, checkpoint)
                checkpoint.unlink()
                records.append(record)
                resume.save(state, trainer, run.run_id, records)
                log.info("%s: %s", name, decision_line(record))
            out = minimized_folder(task, strategy, seed)
            result = write_result(trainer, settings, task, strategy, seed, training, records, out)
            seconds = time.time() - started
            made = {"run_id": run.run_id, "seconds": seconds, "model": files.sha256(out / "compact.keras")}
            files.write_json(made_by_path(out), made)
            run.finish(result, sorted(out.iterdir()))


def minimization_inputs(settings: Settings, task: str, strategy: str, seed: int) -> dict[str, Any]:
    """Everything that a minimization's decisions depend on."""
    sections = settings.model_dump(include={"network", "training", "evaluation", "minimization"})
    return sections | {
        "version": __version__,
        "seed": seed,
        "task": settings.tasks[task].model_dump(),
        "strategy": settings.strategies[strategy].model_dump(),
        "initial": files.sha256(trained_folder(task, seed) / "initial.keras"),
        "targets": files.sha256(TARGETS / task / "manifest.json"),
    }


def write_result(
    trainer: Trainer,
    settings: Settings,
    task: str,
    strategy: str,
    seed: int,
    training: dict[str, Any],
    records: list[DecisionRecord],
    out: Path,
) -> dict[str, Any]:
    """Compact the network, measure it, and write all that follows from settings and inputs only."""
    network = trainer.network
    model = compaction.compact(network)
    evaluator = Evaluator(
        model,
        discrete=resolve(settings.tasks[task].operator).discrete,
        threshold=settings.evaluation.threshold,
    )
    final = size(model)
    altering = [record for record in records if record.filters]
    result = {
        "task": task,
        "strategy": strategy,
        "seed": seed,
        "loss": trainer.loss,
        "filters_initial": training["filters"],
        "filters_kept": list(network.filters_kept),
        "parameters_initial": training["parameters"],
        "parameters": final.parameters,
        "macs_per_pixel_initial": training["macs_per_pixel"],
        "macs_per_pixel": final.macs_per_pixel,
        "validation": {
            "initial": training["validation"],
            "final": evaluator(trainer.validation).scores(),
        },
        "test": {
            "initial": training["test"],
            "final": evaluator(load_split(PREPARED, TARGETS / task, "test")).scores(),
        },
        "decisions": len(altering),
        "accepted": sum(record.accepted for record in altering),
        "reverted": sum(not record.accepted for record in altering),
        "training_steps": sum(record.session.steps for record in records),
        "training_steps_initial": training["training_steps"],
    }
    out.mkdir(parents=True, exist_ok=True)
    files.save_model(model, out / "compact.keras")
    np.save(out / "removed_filters.npy", compaction.removed_filters(network))
    files.write_json(out / "decisions.json", [without_seconds(record) for record in records])
    files.write_csv(
        out / "curve.csv",
        ("decision", "score", "limit", "accepted", "filters", "macs_per_pixel"),
        [
            (r.number, r.score, r.limit, int(r.accepted), sum(r.filters_kept), r.macs_per_pixel)
            for r in records
        ],
    )
    files.write_json(out / "result.json", result)
    return result


def without_seconds(record: DecisionRecord) -> dict[str, Any]:
    content = asdict(record)
    del content["session"]["seconds"]
    return content


def session_rows(session: SessionRecord) -> list[tuple[int, float, float]]:
    """(step, training loss, validation score) at each evaluation."""
    return [
        (step, loss, score) for (step, loss), (_, score) in zip(session.losses, session.scores, strict=True)
    ]


def decision_line(record: DecisionRecord) -> str:
    tried = ", ".join(str(filter) for filter in record.filters) or "last session"
    verdict = "kept" if record.accepted else "stepped back"
    kept = ", ".join(map(str, record.filters_kept))
    return f"{record.number}. {record.alteration} {tried}: {verdict}, {record.reason}; filters {kept}"


def made_by_path(out: Path) -> Path:
    """Where a minimization's time and MLflow run are noted: no output, since they vary."""
    return STATE / "runs" / f"{out.name}.json"


def register(settings: Settings, task: str) -> str:
    """Register the task's best network of the comparison; the version's number."""
    results = files.read_json(REPORTS / "comparison.json", "compare")
    result = report.best(results, task)
    out = minimized_folder(task, result["strategy"], result["seed"])
    model = out / "compact.keras"
    made = made_by_path(out)
    run_id = None
    if made.exists():
        # Outputs that DVC took from its cache may have been made by another run than the last one.
        noted = files.read_json(made, "minimize")
        run_id = noted["run_id"] if noted["model"] == files.sha256(model) else None
    return registry.register(open_store(Path.cwd()), task, model, result, run_id)
