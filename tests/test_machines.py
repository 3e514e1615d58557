"""`--json`: each command's answer is what docs/machines.md says, and alone on stdout."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_app import Command, Ended
from typer.main import get_command

from comparisons import network
from selfscale import files
from selfscale.cli import answers
from selfscale.cli import app as cli
from selfscale.paths import Baseline, Job, Training
from selfscale.pipeline import minimize as minimizing
from selfscale.settings import Registry
from selfscale.tracking.registry import register
from selfscale.tracking.store import open_store
from stores import RESULT
from workspaces import CHECKOUT, JOB, change_params, own_store, trained_project

NETWORK = str(JOB.training.output / "initial.keras")
NO_ANSWER = {"repro", "ui"}
NAMES = sorted(get_command(cli.app).commands)  # type: ignore[attr-defined]


@pytest.fixture(scope="module", autouse=True)
def no_server() -> Iterator[None]:
    with own_store():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A project that the tests of this module bring from its trained network to a champion, in order."""
    folder = shutil.copytree(trained_project(), tmp_path_factory.mktemp("machines") / "project")
    tiny = {"runs.tasks": ["sobel"], "runs.strategies": ["random"], "minimization.limits.decisions": 2}
    change_params(folder / "params.yaml", tiny | {"minimization.removal.steps": 4, "execution.workers": 1})
    return folder


@pytest.fixture(autouse=True)
def project(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def command(monkeypatch, capfd) -> Command:
    """`selfscale ...` in this process; also what its worker processes print."""

    def run(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["selfscale", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Ended(ended.value.code or 0, *capfd.readouterr())

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return run


@pytest.fixture
def answered(command):
    """Runs a command with `--json`; its exit code, and its answer, which must be all that is on stdout."""

    def run(*words: str, code: int = 0) -> Any:
        ended = command(*words, "--json")
        assert ended.code == code, ended
        assert ended.out.count("\n") == 1
        return json.loads(ended.out, parse_constant=pytest.fail)

    return run


def documented() -> dict[str, set[str]]:
    """The keys in the table of docs/machines.md by command, as it is written there."""
    text = (CHECKOUT / "docs/machines.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \| (.*?) \| .* \|$", text, re.MULTILINE)
    return {
        name: set(re.findall("`(.*?)`", keys))
        for names, keys in rows
        for name in re.findall("`(.*?)`", names)
    }


KEYS = documented()


def test_every_command_that_reports_has_the_option_and_is_documented():
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    having = {name for name in NAMES if any("--json" in option.opts for option in commands[name].params)}
    assert having == {*NAMES} - NO_ANSWER
    assert {name.split()[0] for name in KEYS} == having


def test_inputs(answered):
    found = answered("inputs")
    assert found.keys() == KEYS["inputs"]
    assert found["photographs"] == files.read_json(Path("data/inputs/photographs.json"), "")


def test_prepare_and_targets(answered):
    found = answered("prepare")
    assert found.keys() == KEYS["prepare"]
    assert found["counts"]["train"] == {"photographs": 5, "images": 5}
    found = answered("targets", "sobel")
    assert found.keys() == KEYS["targets TASK"]
    assert (found["task"], found["operator"]) == ("sobel", "sobel")


def test_a_user_who_prints_does_not_disturb(answered, project):
    Path("talks.py").write_text(
        "print('imported')\n\ndef invert(image):\n    print('called')\n    return 1 - image\n"
    )
    change = {"tasks.otsu": {"operator": "talks:invert", "loss": "mae"}}
    shutil.copy("params.yaml", "other.yaml")
    change_params(Path("other.yaml"), change)
    assert answered("targets", "otsu", "--params", "other.yaml")["operator"] == "talks:invert"


@pytest.mark.parametrize(
    ("words", "work"),
    [
        (["train", "sobel"], Training("sobel", 0)),
        (["minimize", "sobel"], Job("sobel", "random", 0)),
        (["baseline", "sobel"], Baseline("sobel", 0)),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_commands_that_train(answered, words, work):
    if words[0] == "baseline":
        assert answered("budget").keys() == {work.name}
    found = answered(*words)
    assert found.keys() == KEYS[f"{words[0]} TASK"]
    assert found == files.read_json(work.result, "")


def test_scale(answered, monkeypatch):
    """Its growth is tested elsewhere; its answer is the file of the minimization, as in `minimize`."""
    monkeypatch.setattr(minimizing, "scale", lambda *_: "a line for people")
    shutil.copytree(Job("sobel", "random", 0).output, Job("sobel", "scale", 0).output)
    assert answered("scale", "sobel").keys() == KEYS["scale TASK"]


def test_worth(answered):
    found = answered("worth", "sobel")
    assert found.keys() == KEYS["worth TASK"]
    assert found == files.read_json(Path("reports/worth-sobel-seed-0.json"), "")


def test_compare_and_pick(answered):
    found = answered("compare")
    assert found.keys() == KEYS["compare"]
    assert found == files.read_json(Path("reports/comparison.json"), "")
    found = answered("curve", "sobel")
    assert found.keys() == KEYS["curve TASK"]
    picked = answered("pick", "sobel", "--max-macs", "1e9")
    assert picked.keys() == KEYS["pick TASK"] == found["networks"][-1].keys()
    assert picked["path"] == found["networks"][-1]["path"]


def test_the_registry(answered, command):
    found = answered("register")
    assert found.keys() == {"sobel"}
    assert found["sobel"].keys() == KEYS["promote TASK"]
    assert answered("promote", "sobel").keys() == KEYS["promote TASK"]
    Path("other.keras").write_bytes(network())
    register(open_store(Path()), "sobel", Path("other.keras"), RESULT, "", None, Registry())
    assert answered("promote", "sobel", "--version", "2", "--force")["previous"] == 1
    assert answered("rollback", "sobel").keys() == KEYS["rollback TASK"]


def test_apply_and_visualize(answered):
    Path("photos/broken.png").write_text("no image")
    for name in ("apply", "visualize"):
        found = answered(name, NETWORK, "photos/0.png", "photos/broken.png", "--out", "out", code=1)
        assert found.keys() == KEYS[name]
        ((skipped,), written) = found["skipped"], found["written"]
        assert (written, skipped["name"]) == (1, "photos/broken.png")
        assert skipped["reason"].startswith("broken: ")


def test_export(answered):
    found = answered("export", NETWORK, "--to", "tflite", "--out", "a.tflite", "--quantize")
    assert found.keys() == KEYS["export"]
    assert (found["size"], found["quantized"]) == (Path("a.tflite").stat().st_size, True)
    assert found["largest_difference"] >= found["mean_difference"] > 0


def test_doctor(answered):
    found = answered("doctor")
    assert found.keys() == KEYS["doctor"]
    assert {key for finding in found["findings"] for key in finding} == {"subject", "text", "problem"}
    shutil.move("params.yaml", "away.yaml")
    found = answered("doctor", code=1)
    assert found["problems"] == sum(finding["problem"] for finding in found["findings"]) > 0
    shutil.move("away.yaml", "params.yaml")


def test_sync(answered):
    assert answered("sync").keys() == KEYS["sync"]
    assert answered("sync") == {"synced": 0}


def test_an_error_leaves_stdout_empty(command):
    ended = command("train", "sobell", "--json")
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1


def test_what_is_no_number_is_null():
    assert answers.finite({"a": [1.5, float("nan"), (float("inf"), "x", None)]}) == {
        "a": [1.5, None, [None, "x", None]]
    }
