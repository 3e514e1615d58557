"""What this installation and this project have, and what to do about each problem.

A check yields findings; it ends with its first problem that is raised as an error, and never hides
what the other checks find. Nothing is written, except that a store that was moved is followed.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, NamedTuple

from selfscale import __version__, schemas
from selfscale.config import Execution
from selfscale.errors import UserError, one_line
from selfscale.settings import Settings

if TYPE_CHECKING:
    from selfscale.paths import Job

PACKAGES = ("tensorflow", "keras", "mlflow", "dvc", "numpy", "scikit-image")


class Finding(NamedTuple):
    """One line: what there is, or what is wrong and, behind a semicolon, what to do about it."""

    subject: str
    text: str
    problem: bool = False


Check = Callable[[], Iterable[Finding]]


def examine(load: Callable[[], Settings]) -> list[Finding]:
    """All findings about the working directory; `load` reads its settings or raises UserError."""
    settings: Settings | None = None

    def valid_settings() -> Iterator[Finding]:
        nonlocal settings
        settings = load()
        yield Finding("settings", "valid")

    findings = [*collect("versions", versions), *collect("settings", valid_settings)]
    execution = settings.execution if settings else Execution()
    minimizations = len(jobs(settings)) if settings else 1
    trials = settings.minimization.speculative if settings else 1
    checks: list[tuple[str, Check]] = [
        ("versions", partial(engine, execution)),
        ("devices", partial(devices, execution)),
        ("machine", partial(machine, execution, minimizations, trials)),
        ("store", store),
        ("data", partial(prepared, settings)),
    ]
    if settings:
        checks += [("data", partial(targets, settings, task)) for task in settings.runs.tasks]
        checks += [("networks", partial(networks, settings))]
    return findings + [finding for subject, check in checks for finding in collect(subject, check)]


def collect(subject: str, check: Check) -> list[Finding]:
    """What a check finds; an error, after which it cannot go on, is its last finding."""
    findings = []
    try:
        for finding in check():
            findings.append(finding)
    except UserError as error:
        findings.append(Finding(subject, str(error), problem=True))
    except ImportError as error:
        findings.append(Finding(subject, f"{error}; install selfscale again", problem=True))
    except OSError as error:
        text = f"{error.filename or 'the disk'}: {error.strerror}; make it readable and writable"
        findings.append(Finding(subject, text, problem=True))
    return findings


def render(findings: Iterable[Finding]) -> str:
    """A line per finding, problems marked, and their number at the end."""
    findings = list(findings)
    lines = [
        f"{'!' if problem else ' '} {subject:<9} {one_line(text)}" for subject, text, problem in findings
    ]
    problems = sum(finding.problem for finding in findings)
    end = f"{problems} problem{'s' * (problems > 1)}, marked with !" if problems else "nothing is wrong"
    return "\n".join([*lines, end]) + "\n"


def versions() -> Iterator[Finding]:
    yield Finding("versions", f"selfscale {__version__}, python {platform.python_version()}")
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            yield Finding("versions", f"{package} is not installed; install selfscale again", problem=True)
    yield Finding("versions", ", ".join(found))


def engine(execution: Execution) -> Iterator[Finding]:
    try:
        yield Finding("versions", f"ray {metadata.version('ray')}")
    except metadata.PackageNotFoundError:
        if execution.engine == "ray":
            raise UserError(
                "execution.engine: ray is not installed; pip install -e '.[ray]', or set it to processes"
            ) from None


def devices(execution: Execution) -> Iterator[Finding]:
    import tensorflow as tf

    from selfscale.nn.devices import NO_GPU, missing_gpu, visible_gpus

    gpus = visible_gpus()
    for gpu in gpus:
        name = tf.config.experimental.get_device_details(gpu).get("device_name", "of unknown name")
        yield Finding("devices", f"{gpu.name.removeprefix('/physical_device:')} {name}: used")
    if problem := missing_gpu():
        yield Finding("devices", problem, problem=True)
    elif not gpus and shutil.which("nvidia-smi") and "CUDA_VISIBLE_DEVICES" not in os.environ:
        text = "there is an NVIDIA driver, but TensorFlow sees no GPU; pip install -e '.[gpu]'"
        yield Finding("devices", text, problem=True)
    elif not gpus:
        yield Finding("devices", "no GPU: the CPU is used")
    if execution.mixed_precision and not gpus:
        yield Finding("devices", NO_GPU, problem=True)


def machine(execution: Execution, minimizations: int, trials: int) -> Iterator[Finding]:
    import joblib
    import psutil

    from selfscale.pipeline.repro import default_workers

    cores, memory = joblib.cpu_count(), psutil.virtual_memory()
    free = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB of memory free"
    yield Finding("machine", f"{cores} cores, {free}")
    if execution.engine == "ray":
        return
    workers = min(minimizations, default_workers(execution, trials))
    count = f"{workers} workers of {execution.threads} threads each"
    yield Finding("machine", f"{count}, for {minimizations} minimizations")
    if workers * execution.threads > cores:
        remedy = "lower execution.workers or execution.threads"
        yield Finding("machine", f"{count} are more than {cores} cores; {remedy}", problem=True)


def store() -> Iterator[Finding]:
    """Opens a store that is there; makes none."""
    from selfscale.paths import store_root
    from selfscale.tracking.store import VARIABLE, open_existing, store_folder

    database = store_root() / "mlruns" / "mlflow.db"
    chosen = os.environ.get(VARIABLE)
    if not chosen and not database.exists():
        yield Finding("store", f"{database}: not there yet; the first training makes it")
        return
    try:
        client = open_existing(store_root())
    except UserError as error:
        remedy = "" if chosen else f"; move {database} away to start with an empty store"
        raise UserError(f"{error}{remedy}") from error
    where = store_folder(client) or client.tracking_uri
    yield Finding("store", f"{where}: opens, {len(client.search_experiments())} experiments")


def prepared(settings: Settings | None) -> Iterator[Finding]:
    from selfscale.files import read_json
    from selfscale.paths import PREPARED

    manifest = read_json(PREPARED / "manifest.json", "prepare", schemas.Prepared)
    counts = ", ".join(f"{split} {count['images']}" for split, count in manifest.get("counts", {}).items())
    yield Finding("data", f"{PREPARED}: {manifest.get('source')}, images: {counts}")
    if settings:
        keys = ("source", "size", "split_seed")
        other = [f"data.{key}" for key in keys if manifest.get(key) != getattr(settings.data, key)]
        if other:
            raise UserError(f"{PREPARED}: made with another {', '.join(other)}; run `selfscale prepare`")


def targets(settings: Settings, task: str) -> Iterator[Finding]:
    from selfscale.data.prepare import SPLITS, load_split
    from selfscale.files import read_json
    from selfscale.paths import PREPARED, TARGETS

    folder, wanted = TARGETS / task, settings.tasks[task]
    made = read_json(folder / "manifest.json", f"targets {task}", schemas.Targets)
    if PREPARED.exists():
        for split in SPLITS:
            load_split(PREPARED, folder, split)
    if (made.get("operator"), made.get("arguments")) != (wanted.operator, wanted.arguments):
        raise UserError(f"{folder}: made with another operator or arguments; run `selfscale targets {task}`")
    yield Finding("data", f"{folder}: targets of {made['operator'] or wanted.targets}")


def networks(settings: Settings) -> Iterator[Finding]:
    from selfscale.files import read_json
    from selfscale.paths import Training

    trainings = [Training(task, seed) for task in settings.runs.tasks for seed in settings.runs.seeds]
    for kind, wanted, result in (
        ("trained", trainings, "training.json"),
        ("minimized", jobs(settings), "result.json"),
    ):
        found = [work for work in wanted if (work.output / result).exists()]
        rest = "" if len(found) == len(wanted) else "; `dvc repro` makes the others"
        yield Finding("networks", f"{len(found)} of {len(wanted)} {kind}{rest}")
        for work in found:
            read_json(work.output / result, work.command, work.schema)
            for path in sorted(work.output.rglob("*")):
                if path.is_file() and not path.stat().st_size:
                    text = f"{path}: is empty; run `selfscale {work.command}` again"
                    yield Finding("networks", text, problem=True)


def jobs(settings: Settings) -> list[Job]:
    from selfscale.paths import Job

    runs = settings.runs
    return [Job(task, name, seed) for task in runs.tasks for name in runs.strategies for seed in runs.seeds]
