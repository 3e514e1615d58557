"""Projects in folders of their own, with settings that run in seconds, for the tests of the whole."""

from __future__ import annotations

import atexit
import functools
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ruamel.yaml import YAML

from conftest import pictures
from forks import TRAINING, fork
from selfscale.data import prepare as dataset
from selfscale.data import targets
from selfscale.paths import PREPARED, TARGETS, Job
from selfscale.pipeline import minimize as minimizing
from selfscale.pipeline import train as pipeline
from selfscale.settings import load
from stores import new_store

CHECKOUT = Path(__file__).parent.parent
JOB = Job("sobel", "random", 0)
TINY = {
    "runs.tasks": ["sobel", "canny"],
    "runs.strategies": ["random", "sequential"],
    "runs.seeds": [0],
    "network.widths": [3, 2],
    "network.kernel": 3,
    "training.batch": 4,
    "training.crop": 24,
    "training.evaluations": 2,
    "network.center": False,
    "training.optimizer": "adam",  # at tiny sizes it decides more often either way
    "training.learning_rate": 0.005,
    "training.clip_norm": 0.1,
    "training.first.starts": 1,
    "training.first.steps": 60,
    "evaluation.max_images": 8,
    "minimization.removal.steps": 20,
    "minimization.removal.sessions": "always",
    "minimization.layers.tries": 0,  # else little would be left to interrupt
    "minimization.layers.steps": 20,
    "minimization.limits.steps": None,
    "minimization.last_session_steps": 20,
    "execution.workers": 1,  # a process of its own for each job would import TensorFlow first
}
OWN_PHOTOGRAPHS = {"data.source": "folder", "data.folder.path": "photos", "data.size": 40}

# Runs a command as `selfscale` does, and sends a signal to itself when a function is called the n-th time.
DIES = """
import os, pkgutil, sys
from unittest.mock import patch
from selfscale.cli import app as cli

name, left, number, *words = sys.argv[1:]
real, left = pkgutil.resolve_name(name), int(left)

def dying(*arguments, **named):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), int(number))
    return real(*arguments, **named)

sys.argv = ["selfscale", *words]
with patch(name.replace(":", "."), dying):
    cli.main()
"""


@contextmanager
def own_store() -> Iterator[None]:
    """Without the variables that name another store than the one in the working directory."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
            patch.delenv(name, raising=False)
        yield


def change_params(path: Path, changes: Mapping[str, Any]) -> None:
    """Set existing keys, written with dots, in a file of settings."""
    yaml = YAML()
    content = yaml.load(path)
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = content
        for name in sections:
            section = section[name]
        assert last in section, key
        section[last] = value
    yaml.dump(content, path)


def new_project(folder: Path, changes: Mapping[str, Any] | None = None) -> None:
    """The checkout's settings made tiny, and an empty MLflow store."""
    folder.mkdir(parents=True)
    for name in ("params.yaml", "picks.json"):
        shutil.copy(CHECKOUT / name, folder)
    change_params(folder / "params.yaml", TINY | dict(changes or {}))
    new_store(folder)


def save_photographs(folder: Path, seed: int = 0, count: int = 10, side: int = 40) -> None:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures(count, seed, side)):
        Image.fromarray(picture[..., 0]).save(folder / f"{number}.png")


def prepare(folder: Path, seed: int = 0) -> None:
    """Photographs and their Sobel targets, as `selfscale prepare` and `selfscale targets` make them."""
    save_photographs(folder / "photos", seed)
    with chdir(folder):
        settings = load(Path("params.yaml"))
        dataset.prepare(settings.data, PREPARED, workers=1)
        targets.make_targets(settings.tasks[JOB.task], PREPARED, TARGETS / JOB.task, workers=1)


def train(folder: Path) -> None:
    with chdir(folder):
        pipeline.train(load(Path("params.yaml")), JOB.training)


@functools.cache
def trained_project() -> Path:
    """A project up to its trained network, to be copied."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    with own_store():
        new_project(folder / "project", OWN_PHOTOGRAPHS)
        prepare(folder / "project")
        train(folder / "project")
    return folder / "project"


@functools.cache
def minimized_project() -> Path:
    """The same up to the network of JOB, to be copied."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    shutil.copytree(trained_project(), folder / "project")
    with own_store():
        minimize(folder / "project")
    return folder / "project"


def minimize(folder: Path, **options: Any) -> None:
    """What `selfscale minimize` does, in this process."""
    with chdir(folder):
        minimizing.run_minimization(load(Path("params.yaml")), JOB, **options)


def minimize_and_die(folder: Path, function: str, call: int, number: signal.Signals) -> int:
    """`selfscale minimize` in a process that gets a signal at a call of a function; its exit code."""
    return die(folder, function, call, number, *JOB.command.split())


def die(folder: Path, function: str, call: int, number: signal.Signals, *words: str) -> int:
    """`selfscale` in a process that gets a signal at a call of a function; its exit code."""
    ended = fork(TRAINING, folder, DIES, function, str(call), str(int(number)), *words)
    assert "Traceback" not in ended.err, ended.err
    return ended.code


def selfscale(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The installed command, in a process of its own."""
    command = [str(Path(sys.executable).with_name("selfscale")), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
