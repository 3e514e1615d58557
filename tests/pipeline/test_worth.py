from __future__ import annotations

import json
import shutil
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import pytest
from selfscale.tracking.ablation_runs import WorthRun

from selfscale.errors import UserError
from selfscale.pipeline.worth import run_worth
from selfscale.records import Filter
from selfscale.search.ablation import TESTS
from selfscale.settings import load
from selfscale.tracking.store import Client, open_store
from stores import new_store
from stores import worth_record as record
from workspaces import change_params, contents, own_store, runs, trained_project

STEPS = 6


@pytest.fixture
def client(tmp_path: Path, monkeypatch) -> Client:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return new_store(tmp_path)


def test_each_test_is_a_run_below_the_one_of_the_network(client, tmp_path):
    artifact = tmp_path / "worth.json"
    artifact.write_text("{}")
    settings = {"training": {"batch": 8}}
    run = WorthRun(client, task="sobel", seed=3, settings=settings)
    tests = [record(test, Filter(0, 0)) for test in TESTS]
    run.finish([record("baseline"), *tests], "what it says", [artifact])
    (parent,) = runs(client, "worth")
    assert parent.info.run_name == "worth - seed 3"
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"training.batch": "8"}
    assert parent.data.metrics["difference"] == 0.25  # the baseline's
    assert parent.data.tags["mlflow.note.content"] == "what it says"
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["worth.json"]
    below = {run.data.tags["test"]: run for run in runs(client, "worth_test")}
    assert set(below) == set(TESTS)
    for test, child in below.items():
        tags, metrics = child.data.tags, child.data.metrics
        assert child.info.run_name == f"{test} layer 0 filter 0"
        assert child.info.status == "FINISHED"
        assert child.info.end_time - child.info.start_time == 1500
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert (tags["task"], tags["seed"], tags["layer"], tags["filter"]) == ("sobel", "3", "0", "0")
        assert (metrics["reference"], metrics["score"], metrics["score_before_training"]) == (0.2, 0.25, 0.4)
        assert (metrics["difference_low"], metrics["difference_high"]) == (0.125, 0.5)
        assert (metrics["similarity_before"], metrics["similarity"]) == (0.5, 0.75)
        assert metrics["moved_2_0"] == 0.2
        assert ("relearned" in metrics) == (test == "reinitialized")
        assert child.data.params["successor"] == "layer 0 filter 1"
        history = client.get_metric_history(child.info.run_id, "score")
        assert [(point.step, point.value) for point in history] == [(4, 0.3), (8, 0.25)]


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
