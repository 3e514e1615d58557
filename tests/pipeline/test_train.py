"""The first session of a network, as its stage trains it."""

from __future__ import annotations

import shutil
import signal
from contextlib import chdir
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from selfscale import files
from selfscale.paths import Training
from selfscale.pipeline import train as pipeline
from selfscale.settings import load
from selfscale.tracking.store import open_store
from stores import runs
from workspaces import change_params, die, own_store, trained_project


def test_what_has_learnt_nothing_starts_afresh_and_the_best_start_is_kept(tmp_path, monkeypatch, caplog):
    scores, steps = [], []

    def first_session(trainer, *arguments):
        session, validation = real(trainer, *arguments)
        steps.append(session.steps)
        scores.append(validation.score("mae") if session.ended != "dead" else np.inf)
        return session, validation

    project = shutil.copytree(trained_project(), tmp_path / "project")
    caplog.clear()  # that may have been made just now
    real = pipeline.first_session
    monkeypatch.setattr(pipeline, "first_session", first_session)
    monkeypatch.setattr(pipeline, "without_skill", lambda *_: 1e-9)  # whatever it does, this is better
    change_params(project / "params.yaml", {"training.first.restarts": 2})
    with chdir(project), own_store():
        pipeline.train(load(Path("params.yaml")), Training("sobel", 0))
        result = files.read_json(Training("sobel", 0).output / "training.json", "train")
    assert len(scores) == 3
    assert caplog.text.count("than the same output everywhere") == np.isfinite(scores).sum() >= 2
    assert result["validation"]["mae"] == pytest.approx(min(scores))
    assert result["starts"] == scores.index(min(scores)) + 1
    assert result["training_steps"] == sum(steps)


def logged(project: Path) -> list[tuple[str, str]]:
    """Status and first learning rate of each training's MLflow run, the oldest first."""
    found = sorted(runs(open_store(project), "training"), key=lambda run: run.info.start_time)
    return [(run.info.status, run.data.params["training.learning_rate"]) for run in found]


def test_what_was_killed_goes_on_in_its_run_unless_the_settings_have_changed(tmp_path):
    project, training = tmp_path / "project", Training("sobel", 0)
    shutil.copytree(trained_project(), project)
    with chdir(project), own_store():
        before = logged(project)
        killed = partial(die, project, "selfscale.tracking.runs:StoredRun._end", 1, signal.SIGKILL)
        assert killed(*training.command.split()) == -signal.SIGKILL
        assert logged(project) == [*before, ("RUNNING", "0.005")]
        pipeline.train(load(Path("params.yaml")), training)
        assert logged(project) == [*before, ("FINISHED", "0.005")]
        assert killed(*training.command.split()) == -signal.SIGKILL
        change_params(Path("params.yaml"), {"training.learning_rate": 0.004})
        pipeline.train(load(Path("params.yaml")), training)
        assert ("FINISHED", "0.004") in logged(project)
