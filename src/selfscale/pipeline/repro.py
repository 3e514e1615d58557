"""The whole pipeline: `dvc repro`, with the items of its matrix stages side by side.

DVC knows what is up to date, and runs one item after another. Several `dvc repro --single-item` at once
are safe: DVC locks what they share, and each writes its own part of `dvc.lock`.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import product, starmap
from pathlib import Path

import joblib
import psutil

from selfscale.config import Execution
from selfscale.errors import UserError
from selfscale.paths import Baseline, Job, Training, Work
from selfscale.pipeline.cluster import cluster_map
from selfscale.pipeline.compare import jobs
from selfscale.settings import Settings

WORKER_BYTES = 1.5 * 2**30  # what a process takes that trains, with TensorFlow
# By itself DVC gives up after three seconds in which another one writes, as on a busy machine.
DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
# What comes before each matrix stage that trains, and is quickly done.
BEFORE = {"train": ("targets",), "minimize": (), "baseline": ("budget",)}

log = logging.getLogger(__name__)


def repro(settings: Settings, workers: int | None = None) -> None:
    """Run all stages that are not up to date, at most `workers` items of a stage at once.

    By default as many as fit cores and memory. With `execution.engine: ray` the items are tasks of a Ray
    cluster, and DVC is told of their outputs afterwards.

    Raises:
        UserError: a stage failed; the other items of its stage were done all the same.
    """
    execution = settings.execution
    count = workers or default_workers(execution, settings.minimization.speculative)
    for stage, before in BEFORE.items():
        if before:
            run("repro", *before)
        stale = changed(stage)
        items = {name: work for name, work in every(settings, stage).items() if name in stale}
        if items and execution.engine == "ray":
            on_cluster(settings, items)
        elif len(items) > 1 and count > 1:
            side_by_side(list(items), min(count, len(items)))
        elif items:
            run("repro", "--single-item", *items)
    run("repro")


def every(settings: Settings, stage: str) -> dict[str, Work]:
    """The items of a matrix stage by DVC's names of them."""
    runs = settings.runs
    work: dict[str, list[Work]] = {
        "train": [*starmap(Training, product(runs.tasks, runs.seeds))],
        "minimize": [*jobs(settings)],
        "baseline": [*starmap(Baseline, product(runs.tasks, runs.seeds))],
    }
    return {item(stage, one): one for one in work[stage]}


def item(stage: str, work: Work) -> str:
    parts = (work.task, work.strategy, work.seed) if isinstance(work, Job) else (work.task, work.seed)
    return f"{stage}@{'-'.join(map(str, parts))}"


def changed(stage: str) -> set[str]:
    """The items of a stage that are not up to date, by DVC's own account."""
    done = subprocess.run([*DVC, "status", "--json", stage], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"dvc status {stage}: {last_line(done.stderr)}")
    return set(json.loads(done.stdout))


def run(*words: str) -> None:
    """A command of DVC's; raises UserError if it fails, of which it has told itself."""
    with ended_with_us():
        code = subprocess.Popen([*DVC, *words], start_new_session=True).wait()
    if code:
        raise UserError(f"dvc {' '.join(words)}: failed with exit code {code}; see above")


def side_by_side(items: Sequence[str], count: int) -> None:
    """`dvc repro --single-item` of each; what they print comes line by line."""
    log.info("%s items, %s at once: %s", len(items), count, ", ".join(items))
    with ThreadPoolExecutor(count) as pool, ended_with_us():
        failed = [name for name, code in pool.map(one_item, items) if code]
    if failed:
        raise UserError(f"{', '.join(sorted(failed))}: failed; see above")


def one_item(name: str) -> tuple[str, int]:
    words = [*DVC, "repro", "--single-item", name]
    # Not this process's terminal: two live displays cannot share one.
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", file=sys.stderr, flush=True)
    return name, process.wait()


@contextmanager
def ended_with_us() -> Iterator[None]:
    """If the block is interrupted, ask DVC and its stages to end: it would not pass it on to them."""
    try:
        yield
    except BaseException:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        raise


def on_cluster(settings: Settings, items: dict[str, Work]) -> None:
    """The same commands as tasks of a Ray cluster in a shared folder, then `dvc commit`."""
    ended = cluster_map(command, list(items.values()), settings.execution, settings.minimization.speculative)
    done: list[str] = []
    failed: list[str] = []
    for (name, work), problem in zip(items.items(), ended, strict=True):
        if problem:
            log.warning("%s: %s", work.command, problem)
        (failed if problem else done).append(name)
    if done:
        run("commit", "--force", *done)
    if failed:
        raise UserError(f"{', '.join(failed)}: failed; see above")


def command(folder: Path, work: Work) -> str | None:
    """Run a job's own command in the folder of the project; what went wrong, if anything."""
    shutil.rmtree(folder / work.output, ignore_errors=True)  # as DVC does
    words = [str(Path(sys.executable).with_name("selfscale")), *work.command.split()]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    return last_line(done.stderr) if done.returncode else None


def default_workers(execution: Execution, trials: int = 1) -> int:
    """How many processes train side by side: as many as set, or as fit cores and memory.

    `trials` that each of them makes at once take `execution.threads` each.
    """
    cores = joblib.cpu_count() // (execution.threads * trials)
    fitting = min(cores, int(psutil.virtual_memory().available // WORKER_BYTES))
    return max(1, execution.workers or fitting)


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["ended without a word"])[-1].removeprefix("error: ")
