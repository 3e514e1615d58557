"""The minimization of a problem's network by `selfscale.minimize`, in the files of any minimization."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfscale import files
from selfscale.decisions import TRAIN
from selfscale.library import minimize as library
from selfscale.library.checkpoint import RECORD
from selfscale.library.result import BELOW, LAST, ChannelDecision, FrontierPoint, MinimizationResult
from selfscale.paths import TARGETS, Job, only_one
from selfscale.pipeline import resume
from selfscale.pipeline.execution import Execution, about
from selfscale.pipeline.problems import Posed, refuse, told
from selfscale.pipeline.results import kept_path
from selfscale.progress import Progress
from selfscale.schemas import Trained
from selfscale.search.channel_importance import CHANNEL_STRATEGIES
from selfscale.settings import Settings

# What of the section counts here.
COUNTS = {
    "tolerance": True,
    "acceptance": {"confidence"},
    "removal": {"steps"},
    "limits": {"steps", "seconds"},
}

log = logging.getLogger(__name__)


def minimize(settings: Settings, job: Job, snapshot: Path | None, progress: Progress) -> None:
    """Minimize a problem's trained network; goes on where a killed minimization of the same inputs was.

    Raises:
        UserError: The network is missing, or the settings or the problem are of no use.
    """
    if snapshot:
        refuse(settings, job.task, "--snapshot")
    arguments = arguments_of(settings, job)
    with only_one(f"minimize-{job.name}"):
        training = files.read_json(job.training.result, job.training.command, Trained)
        posed = Posed(settings, job.task, job.seed, job.training)
        state = resume.state_folder(job, resume.inputs_of_minimization(settings, job))
        before = {key: training[key] for key in ("parameters", "macs_per_pixel")}
        before |= {"score": training["validation"][posed.loss], "filters_kept": training["filters"]}
        described = about(settings, job, {"minimization": COUNTS}, initial=before)
        clock = state / "clock.json"
        with Execution(state, clock, described) as execution:

            def record(decision: ChannelDecision) -> None:
                known = files.read_json(state / "search" / RECORD, job.command)["decisions"]
                write_decisions(posed, [*map(ChannelDecision.from_dict, known)], state)
                execution.decided(decision.number, decision.seconds)
                execution.show()
                words = f"{decision.tried}: {decision.outcome}, {decision.reason}"
                log.info("%s: %s. %s", job.name, decision.number, words)

            with told(f"tasks.{job.task}.problem"):
                found = library.minimize(
                    **of_problem(posed),
                    **arguments,
                    directory=state / "search",
                    callbacks=[record],
                    progress=progress.job(job.title, most=settings.minimization.limits.steps),
                )
            write_result(posed, job, training, found, state)
            execution.finish(job.output, job.clock, sum(each.seconds for each in found.decisions))
        clock.unlink()
        resume.delete_others(state, job, None)


def arguments_of(settings: Settings, job: Job) -> dict[str, Any]:
    """What `selfscale.minimize` is told by the settings.

    Raises:
        UserError: It has no such strategy.
    """
    chosen, strategy = settings.minimization, settings.strategies[job.strategy]
    limits = chosen.limits.model_dump(include={"steps", "seconds"}, exclude_none=True)
    where = f"strategies.{job.strategy}, for the problem {job.task}"
    return {
        "tolerance": chosen.tolerance,
        "confidence": chosen.acceptance.confidence,
        "strategy": CHANNEL_STRATEGIES.bind(strategy.select, strategy.arguments, where),
        "budget": limits | {"session": chosen.removal.steps},
        "seed": job.seed,
    }


def of_problem(posed: Posed) -> dict[str, Any]:
    """What it is told by the problem."""
    names = ("model", "train", "validation", "loss", "optimizer", "metric", "direction", "batch_size")
    return {name: getattr(posed.problem, name) for name in (*names, "protect", "round_to")}


def write_decisions(posed: Posed, decisions: Sequence[ChannelDecision], folder: Path) -> None:
    """Write `decisions.json`, all but what goes beyond the tolerance, as that of any minimization."""
    found: list[dict[str, Any]] = []
    for decision in decisions:
        if decision.target == BELOW:
            continue
        score = posed.scores(decision.score)
        finite = bool(np.isfinite(decision.score))
        found.append(
            {
                "number": decision.number,
                "alteration": TRAIN if decision.target == LAST else "remove",
                "tried": decision.tried,
                "filters": [],
                "started_from": decision.started_from,
                "score": score[posed.loss],
                "relative_loss": decision.relative_loss,
                "bound": decision.bound,
                "metrics": score,
                "accepted": decision.accepted,
                "reason": decision.reason,
                "filters_kept": posed.filters(decision.widths),
                **posed.size(decision.size),
                "session": {
                    "steps": decision.steps,
                    "losses": [],
                    "scores": [(decision.steps, score[posed.loss])],
                    "ended": "completed" if finite else "non-finite",
                },
            }
        )
    files.write_json(folder / "decisions.json", found)
    head = ("decision", "score", "accepted", "filters", "macs_per_pixel")
    rows = [
        (each["number"], each["score"], int(each["accepted"]), sum(each["filters_kept"]), each[head[-1]])
        for each in found
    ]
    files.write_csv(folder / "curve.csv", head, rows)


def write_result(
    posed: Posed, job: Job, training: Mapping[str, Any], found: MinimizationResult, state: Path
) -> None:
    """Write the minimization's folder, but for what shows filters as images."""
    out, final = job.output, found.final
    shutil.rmtree(out, ignore_errors=True)  # of a former result
    useful = (point for point in (*found.frontier, final) if point.decision and point.score)
    points = {point.decision: point for point in useful}
    tests = {0: {key: training[key] for key in ("test", "test_interval")}}
    for number, point in points.items():
        files.save_model(point.model, kept_path(out, number))
        tests[number] = posed.on_test(point.model)
    trials = [each for each in found.decisions if each.target not in (LAST, BELOW)]
    below = sum(each.steps for each in found.decisions if each.target == BELOW)
    result = {
        "task": job.task,
        "strategy": job.strategy,
        "seed": job.seed,
        "problem": posed.name,
        "loss": posed.loss,
        "filters_initial": training["filters"],
        "filters_grown": training["filters"],
        "filters_kept": posed.filters(final.widths),
        "parameters_initial": training["parameters"],
        "macs_per_pixel_initial": training["macs_per_pixel"],
        **posed.size(final.size),
        "validation": {"initial": training["validation"], "final": posed.scores(final.score)},
        **{key: {"initial": tests[0][key], "final": tests[final.decision][key]} for key in tests[0]},
        "decisions": len(trials),
        "accepted": sum(each.accepted for each in trials),
        "reverted": sum(not each.accepted for each in trials),
        "training_steps": sum(each.steps for each in found.decisions) - below,
        "training_steps_initial": training["training_steps"],
        "targets": files.content(TARGETS / job.task / "manifest.json"),
        "frontier_steps": below,
        "kept": [point_of(posed, points[number], tests[number]) for number in sorted(points)],
    }
    files.save_model(final.model, out / "compact.keras")
    write_decisions(posed, found.decisions, out)
    shutil.copyfile(state / "run.json", out / "run.json")
    files.write_json(job.result, result)


def point_of(posed: Posed, point: FrontierPoint, tested: Mapping[str, Any]) -> dict[str, Any]:
    """A network on the way, as `result.json` has it."""
    return {
        "decision": point.decision,
        "filters_kept": posed.filters(point.widths),
        **posed.size(point.size),
        "validation": posed.scores(point.score)[posed.loss],
        "test": tested["test"][posed.loss],
        "test_interval": tested["test_interval"],
    }
