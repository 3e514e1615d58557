from __future__ import annotations

import json
import math
import shutil
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from conftest import new_trainer
from selfscale import config
from selfscale.errors import UserError
from selfscale.nn.fcn import build
from selfscale.nn.trainer import Trainer
from selfscale.pipeline.worth import NOT_TESTED, as_json, content, heat_map, run_worth, table
from selfscale.records import Filter, SessionRecord
from selfscale.search.ablation import TESTS, AblationRecord, Movement, ScoreChange, Successor, hidden
from selfscale.tracking.ablation_runs import WorthRun
from selfscale.tracking.store import Client, open_store
from stores import new_store
from workspaces import change_params, contents, own_store, runs, trained_project

STEPS = 6


def record(test: str, filter: Filter | None = None, ended: str = "completed") -> AblationRecord:
    return AblationRecord(
        test=test,
        filter=filter,
        reference=0.2,
        score_before_training=0.4,
        score=0.25,
        difference=ScoreChange(0.25, 0.125, 0.5),
        against_baseline=ScoreChange(0.3, 0.2, 0.4) if filter else None,
        movements=tuple(Movement(Filter(*pair), 0.1 * n) for n, pair in enumerate([(0, 0), (1, 0), (2, 0)])),
        successor=Successor(Filter(0, 1), 0.75, 0.5) if filter == Filter(0, 0) else None,
        relearned=0.625 if test == "reinitialized" else None,
        session=SessionRecord(8, ((4, 0.5), (8, 0.3)), ((4, 0.3), (8, 0.25)), ended, seconds=1.5),
    )


@pytest.fixture(scope="module")
def narrow(train_split, validation_split) -> Trainer:
    """Layers of one and of two filters."""
    return new_trainer(train_split, validation_split, build([1, 2], kernel=3))


def all_possible(trainer: Trainer) -> list[AblationRecord]:
    filters = hidden(trainer.network)
    tests = [record(test, filter) for filter in filters for test in TESTS if filter.layer]
    return [record("baseline"), record("reinitialized", Filter(0, 0)), *tests]


def test_the_json_has_all_of_the_records_but_the_seconds(narrow):
    records = [record("baseline"), *(record(test, Filter(0, 0)) for test in TESTS)]
    again = json.loads(json.dumps(content(narrow, records)))
    assert again["reference"] == 0.2
    assert again["baseline"]["filter"] is None
    for test, found in zip(records[1:], again["tests"], strict=True):
        session = found.pop("session")
        assert SessionRecord(**as_tuples(session), seconds=1.5) == test.session
        rebuilt = AblationRecord(
            **found
            | {
                "filter": Filter(*found["filter"]),
                "difference": ScoreChange(**found["difference"]),
                "against_baseline": ScoreChange(**found["against_baseline"]),
                "movements": tuple(Movement(Filter(*m["filter"]), m["distance"]) for m in found["movements"]),
                "successor": Successor(**found["successor"] | {"filter": Filter(0, 1)}),
            },
            session=test.session,
        )
        assert rebuilt == test


def as_tuples(session: dict) -> dict:
    return {
        key: tuple(map(tuple, value)) if isinstance(value, list) else value for key, value in session.items()
    }


def test_what_is_not_a_finite_number_is_null_in_json():
    assert as_json({"a": (1.5, math.nan), "b": [math.inf], "seconds": 3.0}) == {"a": [1.5, None], "b": [None]}


def test_the_table_has_a_row_for_each_test_and_says_what_was_not_possible(narrow):
    header, baseline, *rows = table(narrow.network, all_possible(narrow))
    assert {len(cells) for cells in (header, baseline, *rows)} == {len(header)}
    assert baseline[:4] == ("none", "baseline", "0.4", "0.25")
    assert baseline[5:] == ("", "layer 2 filter 0: 0.2", "")
    assert [cells[:2] for cells in rows] == [
        (f"layer {layer} filter {index}", test) for layer, index in ((0, 0), (1, 0), (1, 1)) for test in TESTS
    ]
    assert [cells[2] for cells in rows] == [NOT_TESTED] * 2 + ["0.4"] * 7
    assert rows[2][4:] == (
        "+25.0% (+12.5% to +50.0%)",
        "+30.0% (+20.0% to +40.0%)",
        "layer 2 filter 0: 0.2",
        "layer 0 filter 1: 0.50 → 0.75; itself 0.62",
    )
    assert rows[3][7] == "no other filter"


def test_the_table_says_how_a_session_ended_that_did_not_complete(narrow):
    records = [record("baseline"), record("reinitialized", Filter(0, 0), ended="dead")]
    assert table(narrow.network, records)[4][3] == "0.25 (the session ended dead)"


def test_the_heat_map_is_a_picture_of_the_records(narrow, tmp_path):
    records = all_possible(narrow)
    picture = heat_map("sobel, seed 0", narrow.network, records)
    assert picture == heat_map("sobel, seed 0", narrow.network, records)
    worse = replace(records[-1], difference=ScoreChange(-0.5, -0.6, -0.4))
    assert picture != heat_map("sobel, seed 0", narrow.network, [*records[:-1], worse])
    (tmp_path / "picture.png").write_bytes(picture)
    pixels = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB")).astype(int)
    assert (pixels == (211, 211, 211)).all(axis=-1).sum() > 2000  # light gray: two tests were not possible
    unknown = replace(records[-1], difference=ScoreChange(math.nan, math.nan, math.nan))
    assert heat_map("sobel, seed 0", narrow.network, [*records[:-1], unknown]).startswith(b"\x89PNG")


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
        return Done(folder, run_worth(config.load(Path("params.yaml")), "sobel", 0)[1])


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
        run_worth(config.load(Path("params.yaml")), "sobel", 0)
    assert contents(done.folder / "reports") == before


def test_a_missing_network_names_the_command_that_trains_it(done):
    with chdir(done.folder), pytest.raises(UserError, match="selfscale train sobel --seed 7"):
        run_worth(config.load(Path("params.yaml")), "sobel", 7)
    assert len(contents(done.folder / "reports")) == 2
