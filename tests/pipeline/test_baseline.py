from __future__ import annotations

import shutil
from contextlib import chdir
from pathlib import Path

import keras
import numpy as np
import pytest

import comparisons
from selfscale import paths as workspace
from selfscale.errors import UserError
from selfscale.files import read_json, write_json
from selfscale.nn.trainer import Trainer
from selfscale.paths import Baseline, Job
from selfscale.pipeline.baseline import train_baseline
from selfscale.pipeline.compare import budget
from selfscale.settings import load
from selfscale.tracking.store import open_store
from stores import runs
from workspaces import own_store, trained_project

STEPS = {"random": 20, "sequential": 30}


@pytest.fixture
def project(tmp_path):
    """A trained network, and of its minimizations nothing but how long they took."""
    folder = shutil.copytree(trained_project(), tmp_path / "project")
    for strategy, steps in STEPS.items():
        path = folder / Job("sobel", strategy, 0).output / "result.json"
        write_json(path, comparisons.result("sobel", strategy) | {"training_steps": steps})
    with own_store():
        yield folder


def baseline(folder: Path) -> dict:
    with chdir(folder):
        settings = load(Path("params.yaml"))
        settings = settings.model_copy(update={"runs": settings.runs.model_copy(update={"tasks": ["sobel"]})})
        assert list(budget(settings)) == ["sobel-seed-0"]
        train_baseline(settings, Baseline("sobel", 0))
        return read_json(Baseline("sobel", 0).result, "baseline")


def mae(folder: Path, split: str) -> float:
    """The initial network's, without any of our own code."""
    images, target = (
        np.load(folder / part / f"{split}.npy").astype("float32")
        for part in ("data/prepared", "data/targets/sobel")
    )
    model = keras.saving.load_model(folder / "models/trained/sobel-seed-0/initial.keras", compile=False)
    some = slice(8 if split == "validation" else None)  # evaluation.max_images
    return float(np.abs(model.predict(images[some] / 255, verbose=0) - target[some]).mean(dtype=float))


def test_it_takes_as_many_steps_as_the_longest_minimization_and_keeps_the_better(project):
    found = baseline(project)
    assert (found["steps"], found["training_steps"]) == (30, 30)
    assert found["filters_kept"] == [3, 2]
    for split in ("validation", "test"):
        assert found[split]["initial"]["mae"] == pytest.approx(mae(project, split), rel=1e-4)
    before, after = (found["validation"][network]["mae"] for network in ("initial", "final"))
    assert after < before if found["kept"] == "trained-on" else after == before
    (run,) = runs(open_store(project), "baseline")
    assert run.info.run_name.startswith("baseline - seed 0")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_final_mae"] == pytest.approx(found["test"]["final"]["mae"])
    first = (project / Baseline("sobel", 0).result).read_bytes()
    baseline(project)
    assert (project / Baseline("sobel", 0).result).read_bytes() == first


def test_where_training_on_does_harm_the_initial_network_counts(project, monkeypatch):
    session = Trainer.session

    def ruin(trainer, plan, rng, progress=None):
        record = session(trainer, plan, rng, progress)
        for weights in trainer.network.model.trainable_variables:
            weights.assign(weights * 10)
        return record

    monkeypatch.setattr(Trainer, "session", ruin)
    found = baseline(project)
    assert found["kept"] == "initial"
    assert found["validation"]["final"] == found["validation"]["initial"]
    assert found["test"]["final"] == found["test"]["initial"]


def test_a_missing_minimization_is_named(project):
    (project / Job("sobel", "sequential", 0).output / "result.json").unlink()
    with pytest.raises(UserError, match="selfscale minimize sobel --strategy sequential --seed 0"):
        baseline(project)
    assert not (project / workspace.STATE / "baseline").exists()
    assert not (project / Baseline("sobel", 0).output).exists()


def test_without_a_budget_it_names_the_command(project):
    with chdir(project), pytest.raises(UserError, match="run `selfscale budget` first"):
        train_baseline(load(Path("params.yaml")), Baseline("sobel", 0))
