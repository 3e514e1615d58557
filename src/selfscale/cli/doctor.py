"""What this installation and this project have, and what to do about each problem.

A check yields findings; it ends with its first problem that is raised as an error, and never hides
what the other checks find. Nothing is written, except that a store that was moved is followed.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata

from selfscale import __version__, processes
from selfscale.cli.doctor_project import champions, networks, pick, prepared, store, targets
from selfscale.cli.findings import Check, Finding, collect
from selfscale.config import Execution
from selfscale.errors import UserError, counted
from selfscale.settings import Settings

PACKAGES = ("tensorflow", "keras", "mlflow", "dvc", "numpy", "scikit-image")


def examine(load: Callable[[], Settings]) -> list[Finding]:
    """All findings about the working directory; `load` reads its settings or raises UserError."""
    settings: Settings | None = None

    def valid_settings() -> Iterator[Finding]:
        nonlocal settings
        settings = load()
        yield Finding("settings", "valid")

    findings = [*collect("versions", versions), *collect("settings", valid_settings)]
    execution = settings.execution if settings else Execution()
    runs = settings.runs if settings else None
    minimizations = len(runs.tasks) * len(runs.strategies) * len(runs.seeds) if runs else 1
    trials = settings.minimization.speculative if settings else 1
    checks: list[tuple[str, Check]] = [
        ("versions", partial(engine, execution)),
        ("versions", keras_settings),
        ("devices", partial(devices, execution)),
        ("machine", partial(machine, execution, minimizations, trials)),
        ("store", store),
        ("data", partial(prepared, settings)),
    ]
    if settings:
        checks += [("data", partial(targets, settings, task)) for task in settings.runs.tasks]
        checks += [("networks", partial(networks, settings))]
        checks += [("registry", partial(champions, settings, task)) for task in settings.runs.tasks]
        checks += [("registry", partial(pick, settings))]
    return findings + [finding for subject, check in checks for finding in collect(subject, check)]


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
                "execution.engine: ray is not installed; pip install 'selfscale[ray]', or set it to processes"
            ) from None


def keras_settings() -> Iterator[Finding]:
    """No problem for commands, which go without them, but for programs that import selfscale."""
    for text in processes.overruled:
        yield Finding("versions", f"{text} for programs of yours; commands do without it")


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
        text = "there is an NVIDIA driver, but TensorFlow sees no GPU; pip install 'selfscale[gpu]'"
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
    yield Finding("machine", f"{counted(cores, 'core')}, {free}")
    if execution.engine == "ray":
        return
    workers = min(minimizations, default_workers(execution, trials))
    count = f"{counted(workers, 'worker')} of {counted(execution.threads, 'thread')} each"
    yield Finding("machine", f"{count}, for {counted(minimizations, 'minimization')}")
    if workers * execution.threads > cores:
        remedy = "lower execution.workers or execution.threads"
        yield Finding("machine", f"{count} are more than {counted(cores, 'core')}; {remedy}", problem=True)
