from __future__ import annotations

import json
import shutil
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import pytest

from selfscale.errors import UserError
from selfscale.pipeline.worth import run_worth
from selfscale.search.ablation import TESTS
from selfscale.settings import load
from selfscale.tracking.store import open_store
from stores import runs
from workspaces import change_params, contents, own_store, trained_project

STEPS = 6


class Done(NamedTuple):
    folder: Path
    table: str


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Done:
    """The whole stage, on the tiny trained project of the pipeline's tests."""
    folder = tmp_path_factory.mktemp("worth") / "project"
    shutil.copytree(trained_project(), folder)
    change_params(folder / "params.yaml", {"minimization.removal.steps": STEPS})
    with own_store(), chdir(folder):
        return Done(folder, run_worth(load(Path("params.yaml")), "sobel", 0)[1])


def test_the_stage_writes_its_outputs_and_returns_the_table(done):
    assert set(contents(done.folder / "reports")) == {"worth-sobel-seed-0.json", "worth-sobel-seed-0.png"}
    found = json.loads((done.folder / "reports" / "worth-sobel-seed-0.json").read_text(encoding="utf-8"))
    assert (found["task"], found["seed"], found["loss"], found["filters"]) == ("sobel", 0, "mae", [3, 2])
    assert (found["session_steps"], found["baseline"]["session"]["steps"]) == (STEPS, STEPS)
    assert len(found["tests"]) == 5 * len(TESTS)
    assert found["not_possible"] == []
    assert len([line for line in done.table.splitlines() if line.startswith("| layer")]) == 5 * len(TESTS)
    for test in found["tests"]:
        assert f"{test['score']:.4g}" in done.table
    client = open_store(done.folder)
    (run,) = runs(client, "worth")
    assert run.info.run_name == "worth - seed 0"
    tested = runs(client, "worth_test")
    assert len(tested) == 5 * len(TESTS)
    assert {each.info.status for each in (run, *tested)} == {"FINISHED"}


def test_the_stage_logs_a_run_per_test_with_the_outputs_at_their_parent(done):
    with own_store():
        client = open_store(done.folder)
        (parent,) = runs(client, "worth")
        artifacts = [file.path for file in client.list_artifacts(parent.info.run_id)]
        below = runs(client, "worth_test")
    assert artifacts == ["worth-sobel-seed-0.json", "worth-sobel-seed-0.png"]
    assert len(below) == 5 * len(TESTS)
    assert {run.data.tags["mlflow.parentRunId"] for run in below} == {parent.info.run_id}
    assert {run.experiment_id for run in (r.info for r in [parent, *below])} == {parent.info.experiment_id}


def test_the_same_seed_writes_the_same_files(done):
    before = contents(done.folder / "reports")
    with own_store(), chdir(done.folder):
        run_worth(load(Path("params.yaml")), "sobel", 0)
    assert contents(done.folder / "reports") == before


def test_a_missing_network_names_the_command_that_trains_it(done):
    with chdir(done.folder), pytest.raises(UserError, match="selfscale train sobel --seed 7"):
        run_worth(load(Path("params.yaml")), "sobel", 7)
    assert len(contents(done.folder / "reports")) == 2
