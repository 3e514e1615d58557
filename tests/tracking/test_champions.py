"""Promotion and rollback, through the command line: the rule of the champion, and what is told of it."""

# ruff: noqa: F811
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_app import command  # noqa: F401

from forks import TRAINING, fork
from selfscale.cli import registry as cli_registry
from selfscale.inference.load import find
from selfscale.nn.fcn import build
from selfscale.pipeline import register as registering
from selfscale.settings import Registry, Settings
from selfscale.tracking.champions import Standing
from selfscale.tracking.registry import register
from selfscale.tracking.store import Client, open_store
from stores import RESULT, aliases, new_store
from workspaces import CHECKOUT, own_store

NAME = "selfscale-sobel"
SCORES = (0.012, 0.011, 0.013)  # of versions 1, 2 and 3, of equal size: each on the same validation images


@pytest.fixture(scope="module")
def registered(tmp_path_factory) -> Path:
    """A project with three versions, of which the second is the best."""
    root = tmp_path_factory.mktemp("champions") / "project"
    with own_store():
        client = new_store(root)
        shutil.copy(CHECKOUT / "params.yaml", root)
        for seed, score in enumerate(SCORES):
            path = root / f"{seed}.keras"
            build([2, 1], kernel=3, deviation=0.3, seed=(seed,)).save(path)
            result = RESULT | {"validation": {"initial": {"mae": 0.013}, "final": {"mae": score}}}
            register(client, "sobel", path, result, "", None, Registry())
    return root


@pytest.fixture
def project(registered, tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    root = shutil.copytree(registered, tmp_path / "project")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def client(project) -> Client:
    return open_store(project)


def test_registering_keeps_the_best_as_champion(client):
    assert aliases(client) == {"champion": 2, "previous": 1}


def test_a_worse_version_is_refused_unless_forced(command, client):
    code, out, err = command("promote", "sobel")  # the newest
    assert (code, out) == (2, "")
    assert err == (
        "error: selfscale-sobel version 3: validation mae 0.013 at 125 multiply-accumulates is worse than "
        "0.011 at 125 of version 2 by registry.rule: smallest; --force promotes it all the same\n"
    )
    assert aliases(client) == {"champion": 2, "previous": 1}
    code, out, _ = command("promote", "sobel", "--version", "3", "--force")
    assert code == 0
    assert out.startswith(
        "selfscale-sobel version 3: champion; version 2 is previous: validation mae 0.013 at 125 "
        "multiply-accumulates is worse"
    )
    assert aliases(client) == {"champion": 3, "previous": 2}
    code, _, err = command(
        "promote", "sobel", "--version", "1"
    )  # better than the champion, not than the best
    assert (code, aliases(client)) == (2, {"champion": 3, "previous": 2})
    assert "0.012 at 125 multiply-accumulates is worse than 0.011 at 125 of version 2" in err
    code, out, _ = command("promote", "sobel", "--version", "2")
    assert (code, aliases(client)) == (0, {"champion": 2, "previous": 3})
    assert "0.011 at 125 multiply-accumulates is not worse than 0.012 at 125 of version 1" in out


def test_the_champion_stays_champion(command, client):
    code, out, _ = command("promote", "sobel", "--version", "2")
    assert (code, out) == (0, "selfscale-sobel version 2: champion already\n")
    assert aliases(client) == {"champion": 2, "previous": 1}


def test_rollback_swaps_and_swaps_again(command, client):
    assert command("rollback", "sobel")[:2] == (
        0,
        "selfscale-sobel version 1: champion; version 2 is previous\n",
    )
    assert aliases(client) == {"champion": 1, "previous": 2}
    code, out, _ = command("rollback", "sobel", "--json")
    assert (code, aliases(client)) == (0, {"champion": 2, "previous": 1})
    assert json.loads(out) == {
        "name": NAME,
        "version": 2,
        "champion": 2,
        "previous": 1,
        "note": "champion; version 1 is previous",
    }


def test_without_a_former_champion_there_is_nothing_to_go_back_to(command, client):
    client.delete_registered_model_alias(NAME, "previous")
    code, out, err = command("rollback", "sobel")
    assert (code, out) == (2, "")
    assert err == (
        "error: selfscale-sobel: has no former champion to go back to; `selfscale promote` names another\n"
    )


def test_without_a_champion_any_version_can_be_promoted(command, client):
    client.delete_registered_model_alias(NAME, "champion")
    code, out, _ = command("promote", "sobel", "--json")
    assert (code, aliases(client)["champion"]) == (0, 3)
    assert json.loads(out)["note"] == "champion, the first one"


def test_register_prints_a_line_a_task_or_one_json_object(command, project, monkeypatch):
    def standing(settings: Settings, task: str) -> Standing:
        return Standing(f"selfscale-{task}", 2, 1, None, "not champion: worse")

    monkeypatch.setattr(cli_registry, "import_pipeline", lambda execution: None)
    monkeypatch.setattr(registering, "register", standing)
    lines = [f"selfscale-{task} version 2: not champion: worse\n" for task in ("sobel", "canny")]
    assert command("register")[:2] == (0, "".join(lines))
    code, out, _ = command("register", "--json")
    assert code == 0
    assert {task: (found["version"], found["champion"]) for task, found in json.loads(out).items()} == {
        "sobel": (2, 1),
        "canny": (2, 1),
    }


def test_a_copy_of_a_version_has_its_files_and_its_scores(command, client, project):
    client.copy_model_version(f"models:/{NAME}/2", NAME)
    client.set_registered_model_alias(NAME, "champion", "4")
    result = RESULT | {"validation": {"initial": {"mae": 0.013}, "final": {"mae": 0.013}}}
    standing = register(client, "sobel", project / "0.keras", result, "", None, Registry())
    assert (standing.version, standing.champion) == (1, 4)
    assert "is worse than 0.011 at 125 of version 4" in standing.note
    register(client, "sobel", project / "1.keras", RESULT, "", None, Registry())  # what was copied
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 4
    with find(f"{NAME}@champion") as path:
        assert path.exists()


def test_what_something_else_registered_is_neither_trusted_nor_compared(command, client):
    source = client.get_model_version(NAME, "2").source
    client.create_model_version(NAME, source)
    client.create_model_version(
        NAME, "s3://elsewhere/model", tags={"selfscale": '{"loss": "mae", "validation_final": "good"}'}
    )
    code, _, err = command("promote", "sobel", "--version", "4")
    assert code == 2
    assert "version 4: selfscale has not measured it, so it cannot be compared; --force" in err
    assert command("promote", "sobel", "--version", "4", "--force")[0] == 0
    code, out, _ = command("promote", "sobel", "--version", "2")
    assert (code, aliases(client)) == (0, {"champion": 2, "previous": 4})
    assert "is not worse than 0.012 at 125 of version 1" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["promote", "sobel", "--version", "9"], "selfscale-sobel: there is no version 9; versions: 1, 2, 3"),
        (["promote", "canny"], "selfscale-canny: is not registered; run `selfscale register` first"),
        (["rollback", "canny"], "selfscale-canny: is not registered; run `selfscale register` first"),
        (["promote", "sobell"], "task: 'sobell' is unknown; did you mean 'sobel'?"),
        (["promote", "sobel", "--version", "0"], "Invalid value for '--version'"),
    ],
    ids=" ".join,
)
def test_wrong_words_are_one_line(command, project, words, message):
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert message in line


def test_a_version_whose_files_are_gone_cannot_be_promoted(client, project):
    source = client.get_model_version(NAME, "1").source.removeprefix("models:/")
    (folder,) = project.glob(f"mlruns/artifacts/*/models/{source}")
    shutil.rmtree(folder)
    for words in (["promote", "sobel", "--version", "1", "--force"], ["rollback", "sobel"]):
        # In a process of its own: MLflow remembers where a model was, here before the project was copied.
        ended = fork(TRAINING, project, "from selfscale.cli import app; app.main()", *words)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err == (
            "error: selfscale-sobel version 1: its files are gone; run `selfscale register` again\n"
        )
    assert aliases(client) == {"champion": 2, "previous": 1}
