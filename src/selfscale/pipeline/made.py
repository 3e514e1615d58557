"""What was made from what: so that nothing is made twice, and nothing is taken for what it is not.

Beside each output of a stage that trains lies, in the state folder, a note of its inputs and of
its own content. The note is no output itself, since times and MLflow's run ids vary.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from selfscale import files
from selfscale.data import operators
from selfscale.errors import UserError
from selfscale.paths import STATE, TARGETS, Baseline, Job, Training
from selfscale.search.growth import GROWTH_STRATEGIES
from selfscale.search.importance import STRATEGIES
from selfscale.settings import Settings

# What changes results without being told by other inputs: see `config.Execution`.
EXECUTION = {"threads", "deterministic", "mixed_precision"}


@cache
def code() -> str:
    """A hash of this package's modules: another version may come to other results."""
    return files.content(Path(files.__file__).parent, "**/*.py")


def inputs_of_training(settings: Settings, training: Training) -> str:
    chosen = settings.starting_from(training.start)
    return _inputs(chosen, training.task, {"network", "training", "evaluation"}, seed=training.seed)


def inputs_of_minimization(settings: Settings, job: Job) -> str:
    """A hash of all that a minimization's decisions depend on; its initial network has to be there."""
    strategy = settings.strategies[job.strategy]
    growth = {"growth", "scaling"} if strategy.scaling else set()
    return _inputs(
        settings.starting_from(job.start),
        job.task,
        {"network", "training", "evaluation", "minimization"} | growth,
        strategy=strategy.model_dump(),
        own_code=own_code(settings, job.strategy),
        initial=files.content(job.training.output),
    )


def own_code(settings: Settings, strategy: str) -> list[str]:
    """A hash of the user's own code in a strategy, and in growth if it grows; empty where there is none."""
    chosen = settings.strategies[strategy]
    codes = [operators.own_code(STRATEGIES, chosen.select, f"strategies.{strategy}.select")]
    if chosen.scaling:
        codes.append(operators.own_code(GROWTH_STRATEGIES, settings.growth.select, "growth.select"))
    return codes


def inputs_of_baseline(settings: Settings, baseline: Baseline, steps: int) -> str:
    initial = files.content(Training(*baseline).output)
    return _inputs(settings, baseline.task, {"training", "evaluation"}, steps=steps, initial=initial)


def _inputs(settings: Settings, task: str, sections: set[str], **more: Any) -> str:
    inputs = settings.model_dump(include={**dict.fromkeys(sections, True), "execution": EXECUTION}) | more
    inputs["task"] = settings.tasks[task].model_dump()
    inputs["targets"] = files.content(TARGETS / task / "manifest.json")
    inputs["code"] = code()
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def require(made: Training | Job | Baseline) -> None:
    """Raises UserError, which names the stage to run, if an output is not there."""
    if not files.content(made.output):
        raise UserError(f"{made.output}: is missing; run `selfscale {made.command}` first")


def note(made: Training | Job | Baseline, inputs: str, **more: Any) -> None:
    """Note that an output is whole, what it was made from, and what else is known of it."""
    files.write_json(_path(made), {"inputs": inputs, "content": files.content(made.output), **more})


def noted(made: Training | Job | Baseline) -> dict[str, Any] | None:
    """The note, if the output is still what it was then; DVC may have taken another from its cache."""
    path = _path(made)
    if not path.exists():
        return None
    found: dict[str, Any] = files.read_json(path, made.command)
    return found if found["content"] == files.content(made.output) else None


def up_to_date(made: Training | Job | Baseline, inputs: str) -> bool:
    found = noted(made)
    return found is not None and found["inputs"] == inputs


def _path(made: Training | Job | Baseline) -> Path:
    return STATE / "made" / f"{made.command.partition(' ')[0]}-{made.name}.json"
