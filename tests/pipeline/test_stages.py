"""What the stages that train do for all of `runs`: side by side, with the same results, and nothing twice."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import numpy as np
import psutil
import pytest

from selfscale import files
from selfscale.config import Execution
from selfscale.errors import UserError
from selfscale.parallel import WORKER_BYTES, default_workers
from selfscale.paths import Job, Training
from selfscale.pipeline import made, stages
from selfscale.pipeline import train as pipeline
from selfscale.settings import load
from selfscale.tracking.store import open_store
from workspaces import OWN_PHOTOGRAPHS, change_params, contents, new_project, own_store, prepare, runs

SEEDS = {"runs.tasks": ["sobel"], "runs.strategies": ["random"], "runs.seeds": [0, 1]}


@pytest.fixture(scope="module", autouse=True)
def no_server() -> Iterator[None]:
    with own_store():
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A project in which the networks of both seeds were trained, in this process."""
    folder = tmp_path_factory.mktemp("stages") / "project"
    new_project(folder, OWN_PHOTOGRAPHS | SEEDS | {"execution.workers": 1})
    prepare(folder)
    run(folder, stages.train_all)
    return folder


@pytest.fixture
def project(trained, tmp_path) -> Path:
    return shutil.copytree(trained, tmp_path / "project")


def run(folder: Path, stage) -> None:
    with chdir(folder):
        stage(load(Path("params.yaml")))


@pytest.fixture
def done(monkeypatch) -> list[Training]:
    """What was trained, in this process and without training."""
    trained: list[Training] = []

    def train(settings, task, seed, start, progress):
        trained.append(Training(task, seed, start))
        made.note(trained[-1], made.inputs_of_training(settings, trained[-1]))

    monkeypatch.setattr(pipeline, "train", train)
    return trained


def test_side_by_side_the_results_are_the_same(project):
    alone = contents(project / "models")
    shutil.rmtree(project / "models")
    change_params(project / "params.yaml", {"execution.workers": 2})
    run(project, stages.train_all)
    assert contents(project / "models") == alone
    run(project, stages.minimize_all)
    side_by_side = contents(project / "models")
    shutil.rmtree(project / "models/minimized")
    change_params(project / "params.yaml", {"execution.workers": 1})
    run(project, stages.minimize_all)
    assert contents(project / "models") == side_by_side
    found = runs(open_store(project), "minimization")
    assert sorted(run.data.tags["seed"] for run in found) == ["0", "0", "1", "1"]
    assert {run.info.status for run in found} == {"FINISHED"}


def test_what_is_up_to_date_is_not_done_again(project, done, caplog):
    with caplog.at_level(logging.INFO):
        run(project, stages.train_all)
    assert done == []
    assert "all 2 are up to date" in caplog.text
    change_params(project / "params.yaml", {"runs.seeds": [0, 1, 2]})
    run(project, stages.train_all)
    assert done == [Training("sobel", 2)]


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"training.batch": 5}, True),
        ({"tasks.sobel.loss": "mse"}, True),
        ({"execution.threads": 2}, True),
        ({"execution.workers": 3}, False),
        ({"minimization.tolerance": 0.2}, False),
        ({"tasks.canny.loss": "mse"}, False),
    ],
    ids=str,
)
def test_it_is_done_again_when_what_it_depends_on_changes(project, done, monkeypatch, changes, again):
    monkeypatch.setattr(stages, "start", lambda settings: None)
    monkeypatch.setattr(stages, "default_workers", lambda *_: 1)
    change_params(project / "params.yaml", changes)
    run(project, stages.train_all)
    assert len(done) == 2 * again


@pytest.mark.parametrize("name", ["initial.keras", "curve.csv"])
def test_it_is_done_again_when_a_file_is_missing_or_another(project, done, name):
    (project / Training("sobel", 0).output / name).unlink()
    (project / Training("sobel", 1).output / name).write_bytes(b"from elsewhere")
    run(project, stages.train_all)
    assert done == [Training("sobel", 0), Training("sobel", 1)]


def test_other_code_does_it_again(project, done, monkeypatch):
    monkeypatch.setattr(stages.made, "code", lambda: "another version")
    run(project, stages.train_all)
    assert len(done) == 2


def test_what_has_learnt_nothing_starts_afresh_and_the_best_start_is_kept(project, monkeypatch, caplog):
    scores, steps = [], []

    def first_session(trainer, *arguments):
        session, validation = real(trainer, *arguments)
        steps.append(session.steps)
        scores.append(validation.score("mae") if session.ended != "dead" else np.inf)
        return session, validation

    real = pipeline.first_session
    monkeypatch.setattr(pipeline, "first_session", first_session)
    monkeypatch.setattr(pipeline, "without_skill", lambda *_: 1e-9)  # whatever it does, this is better
    change_params(project / "params.yaml", {"training.first.restarts": 2})
    with chdir(project):
        pipeline.train(load(Path("params.yaml")), "sobel", 0)
        result = files.read_json(Training("sobel", 0).output / "training.json", "train")
    assert len(scores) == 3
    assert caplog.text.count("than the same output everywhere") == np.isfinite(scores).sum() >= 2
    assert result["validation"]["mae"] == pytest.approx(min(scores))
    assert result["starts"] == scores.index(min(scores)) + 1
    assert result["training_steps"] == sum(steps)


def test_what_fails_is_told_when_the_rest_is_done(project, monkeypatch):
    monkeypatch.setattr(made, "up_to_date", lambda *_: False)
    tried = []

    def train(settings, task, seed, start, progress):
        tried.append(seed)
        raise UserError(f"seed {seed} is dead")

    monkeypatch.setattr(pipeline, "train", train)
    with pytest.raises(UserError, match=r"seed 0 is dead \(and 1 more failed\)"):
        run(project, stages.train_all)
    assert tried == [0, 1]


@pytest.mark.parametrize("stage", [stages.train_all, stages.minimize_all])
def test_nothing_is_up_to_date_when_other_images_were_prepared(project, done, stage):
    manifest = project / "data/prepared/manifest.json"
    files.write_json(manifest, files.read_json(manifest, "prepare") | {"fingerprint": "of other images"})
    with pytest.raises(
        UserError, match=r"made from other images than .*; run `selfscale targets sobel` again"
    ):
        run(project, stage)
    assert done == []


def test_a_missing_network_is_named_before_the_work(project):
    shutil.rmtree(project / Training("sobel", 1).output)
    with pytest.raises(UserError, match="run `selfscale train sobel --seed 1` first"):
        run(project, stages.minimize_all)
    assert not (project / Job("sobel", "random", 0).output).exists()


def test_workers_are_as_many_as_set_or_as_fit(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    memory = psutil.virtual_memory()._replace(available=int(100 * WORKER_BYTES))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert default_workers(Execution(), 100) == 8
    assert default_workers(Execution(threads=3), 100) == 2
    assert default_workers(Execution(threads=9), 100) == 1
    assert default_workers(Execution(threads=2), 100, 2) == 2
    assert default_workers(Execution(workers=12), 100) == 12
    assert default_workers(Execution(), 5) == 5
    memory = memory._replace(available=int(2.5 * WORKER_BYTES))
    assert default_workers(Execution(), 100) == 2
    memory = memory._replace(available=0)
    assert default_workers(Execution(), 100) == 1
