"""The items of matrix stages side by side, with a DVC that only pretends."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML
from zc.lockfile import LockFile

from pages import CHECKOUT
from selfscale.config import Execution
from selfscale.errors import UserError
from selfscale.pipeline import repro
from selfscale.pipeline.repro import WORKER_BYTES, default_workers
from selfscale.settings import Settings, load

# Notes what it is asked to do; `status` says that all items of that stage have changed.
DVC = """
import json, sys, time
from pathlib import Path
words = sys.argv[1:]
with Path("asked").open("a") as file:
    file.write(" ".join(words) + "\\n")
if words[0] == "status":
    print(json.dumps({name: [] for name in Path("items").read_text().split() if name.startswith(words[2])}))
elif "--single-item" in words:
    time.sleep(0.3)
    sys.exit("dead" in words[-1] or words[-1].endswith("canny-1"))
"""


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """What DVC was asked to do, one line for each command."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.py").write_text(DVC)
    Path("items").write_text("")
    monkeypatch.setattr(repro, "DVC", (sys.executable, "dvc.py"))
    return lambda: Path("asked").read_text().splitlines()


def settings(**changes) -> Settings:
    loaded = load(CHECKOUT / "params.yaml")
    seeds = loaded.runs.model_copy(update={"seeds": [0, 1]})
    return loaded.model_copy(update={"runs": seeds, **changes})


def test_items_are_named_as_dvc_names_them():
    loaded = settings()
    names = {name for stage in repro.BEFORE for name in repro.every(loaded, stage)}
    lock = YAML(typ="safe").load(CHECKOUT / "dvc.lock")["stages"]
    locked = {name for name in lock if name.partition("@")[0] in repro.BEFORE}
    assert locked and locked <= names
    assert "minimize@sobel-random-1" in names


def test_only_what_has_changed_is_done_and_then_the_rest(asked):
    Path("items").write_text("train@sobel-0 train@sobel-1 minimize@canny-cosine-0 minimize@gone-cosine-0")
    repro.repro(settings(), 2)
    trained = {"repro --single-item train@sobel-0", "repro --single-item train@sobel-1"}
    assert trained < set(asked())
    assert [line for line in asked() if line not in trained] == [
        "repro targets",
        "status --json train",
        "status --json minimize",
        "repro --single-item minimize@canny-cosine-0",
        "repro budget",
        "status --json baseline",
        "repro",
    ]


def test_what_fails_is_told_when_the_rest_is_done(asked, capfd):
    Path("items").write_text("train@sobel-0 train@canny-1 train@sobel-1")
    with pytest.raises(UserError, match=r"^train@canny-1: failed; see above$"):
        repro.repro(settings(), 2)
    assert len([line for line in asked() if "--single-item" in line]) == 3
    assert "repro" not in asked()


def test_dvc_waits_while_another_process_has_its_lock(tmp_path, monkeypatch):
    """By itself it gives up after three seconds."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages: {train: {cmd: exit}}")
    subprocess.run([*repro.DVC, "init", "--no-scm", "--quiet"], check=True)
    lock = LockFile(".dvc/tmp/lock")
    ends = threading.Timer(6, lock.close)
    ends.start()
    assert repro.changed("train") == {"train"}
    ends.join()


def test_workers_are_as_many_as_set_or_as_fit(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    memory = psutil.virtual_memory()._replace(available=int(100 * WORKER_BYTES))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert default_workers(Execution()) == 8
    assert default_workers(Execution(threads=3)) == 2
    assert default_workers(Execution(threads=9)) == 1
    assert default_workers(Execution(threads=2), 2) == 2
    assert default_workers(Execution(workers=12)) == 12
    memory = memory._replace(available=int(2.5 * WORKER_BYTES))
    assert default_workers(Execution()) == 2
    memory = memory._replace(available=0)
    assert default_workers(Execution()) == 1
