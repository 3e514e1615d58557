"""A problem of one's own through the stages of the pipeline: a small classifier of shapes in noise."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pytest

from selfscale.cli import loading
from selfscale.errors import UserError
from selfscale.paths import TARGETS, Baseline, Job, Training
from selfscale.pipeline import compare, inputs, pick, problems, register
from selfscale.pipeline.baseline import train_baseline
from selfscale.pipeline.execution import Execution
from selfscale.pipeline.minimize import run_minimization, scale
from selfscale.pipeline.train import train
from selfscale.pipeline.worth import run_worth
from selfscale.progress import Moment, Progress
from selfscale.settings import Settings
from stores import new_store
from workspaces import contents, own_store

MODULE = '''
"""Squares, rings and crosses in noise."""

import keras
import numpy as np

import selfscale


def arrays(seed, count):
    rng = np.random.default_rng(seed)
    kinds, axis = rng.integers(0, 3, count), np.arange(8) - 3.5
    high, wide = abs(axis[:, None]), abs(axis)
    ring = abs(np.hypot(high, wide) - 2.5) < 0.7
    shapes = np.stack([np.maximum(high, wide) < 3, ring, abs(high - wide) < 1])
    noise = rng.normal(0, 0.5, (count, 8, 8))
    return (shapes[kinds] + noise)[..., None].astype("float32"), kinds


def network(width):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="images"),
            keras.layers.Conv2D(width, 3, activation="relu", name="first"),
            keras.layers.Conv2D(width, 3, activation="relu", name="second"),
            keras.layers.GlobalAveragePooling2D(name="mean"),
            keras.layers.Dense(3, activation="softmax", name="classes"),
        ],
        name="shapes",
    )


def shapes(seed: int, width: int = 8, **changes) -> selfscale.Problem:
    given = {
        "model": network(width),
        "train": arrays(1, 400),
        "validation": arrays(2, 300),
        "test": arrays(3, 200),
        "loss": "sparse_categorical_crossentropy",
        "optimizer": keras.optimizers.Adam(0.01),
        "metric": "accuracy",
    }
    return selfscale.Problem(**(given | changes))


class Subclassed(keras.Model):
    def call(self, x):
        return x


def nothing(seed): return 3
def fails(seed): raise RuntimeError("no data today")
def subclassed(seed): return shapes(seed, model=Subclassed())
def no_model(seed): return shapes(seed, model="net")
def no_loss(seed): return shapes(seed, loss=None)
def no_data(seed): return shapes(seed, test=None)
def larger(seed): return shapes(seed, test=(np.zeros((5, 9, 9, 1)), np.zeros(5)))
def rates(seed): return shapes(seed, metric=keras.metrics.AUC())
def layer(seed): return shapes(seed, protect=["first", "second"])
def unlearnable(seed): return shapes(seed, optimizer=keras.optimizers.SGD(1e30))
'''
TASK = {"problem": "own_shapes:shapes", "arguments": {"width": 6}}
SETTINGS = {
    "runs": {"tasks": ["shapes"], "strategies": ["taylor"], "seeds": [0]},
    "tasks": {"shapes": TASK},
    "strategies": {"taylor": {"select": "taylor"}},
    "training": {"first": {"steps": 100, "max_cycles": 2}},
    "minimization": {"tolerance": 0.05, "removal": {"steps": 20}, "limits": {"steps": 200}},
}
MOMENTS: list[Moment] = []
JOB, TRAINING, BASELINE = Job("shapes", "taylor", 0), Training("shapes", 0), Baseline("shapes", 0)


def settings_of(changes: dict[str, Any] | None = None) -> Settings:
    return Settings.model_validate(SETTINGS | (changes or {}))


def lay_out(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "own_shapes.py").write_text(MODULE, encoding="utf-8")
    new_store(folder)


@pytest.fixture(scope="module")
def minimized(tmp_path_factory) -> Iterator[Path]:
    """A project up to its minimized network and baseline."""
    folder = tmp_path_factory.mktemp("problems") / "project"
    lay_out(folder)
    path = list(sys.path)
    with chdir(folder), own_store():
        settings = settings_of()
        problems.describe(settings, "shapes", TARGETS / "shapes")
        train(settings, TRAINING, progress=Progress(MOMENTS.append))
        run_minimization(settings, JOB)
        compare.budget(settings)
        train_baseline(settings, BASELINE)
        yield folder
    sys.path[:] = path
    del sys.modules["own_shapes"]


@pytest.fixture
def project(minimized, monkeypatch) -> Path:
    monkeypatch.chdir(minimized)
    return minimized


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def accuracy(path: Path, seed: int, count: int) -> float:
    from own_shapes import arrays  # type: ignore[import-not-found]

    x, y = arrays(seed, count)
    model = keras.saving.load_model(path, compile=False)
    return float(np.mean(np.argmax(model.predict(x, verbose=0), axis=-1) == y))


def test_result_is_that_of_the_files(project):
    result, trained = read(JOB.result), read(TRAINING.result)
    assert result["loss"] == "1/accuracy" and result["filters_initial"] == trained["filters"] == [6, 6]
    for split, seed, count in (("validation", 2, 300), ("test", 3, 200)):
        before = accuracy(TRAINING.output / "initial.keras", seed, count)
        after = accuracy(JOB.output / "compact.keras", seed, count)
        assert result[split]["initial"]["accuracy"] == pytest.approx(before) == trained[split]["accuracy"]
        assert result[split]["final"]["accuracy"] == pytest.approx(after)
        assert result[split]["final"]["1/accuracy"] == pytest.approx(1 / after)
    assert result["validation"]["final"]["accuracy"] >= result["validation"]["initial"]["accuracy"] / 1.05
    compact = keras.saving.load_model(JOB.output / "compact.keras", compile=False)
    first, second = result["filters_kept"]
    assert [first, second] == [layer.filters for layer in compact.layers[:2]]
    assert result["parameters"] == compact.count_params() < result["parameters_initial"]
    # 6x6 and 4x4 positions of 3x3 kernels, and the last layer, for each of 64 pixels
    macs = 36 * 9 * first + 16 * 9 * first * second + 3 * second
    assert result["macs_per_pixel"] == pytest.approx(macs / 64)
    for point in result["kept"]:
        path = JOB.output / f"kept/{point['decision']:03}.keras"
        assert point["test"] == pytest.approx(1 / accuracy(path, 3, 200))


def test_progress_of_training_is_in_the_unit_of_the_metric(project):
    told = [moment.score for moment in MOMENTS if moment.score is not None]
    assert told and max(told) == pytest.approx(read(TRAINING.result)["validation"]["accuracy"])


def test_baseline_has_the_steps_of_the_minimization(project):
    result, baseline = read(JOB.result), read(BASELINE.result)
    decisions = read(JOB.output / "decisions.json")
    steps = sum(decision["session"]["steps"] for decision in decisions)
    assert baseline["steps"] == baseline["training_steps"] == steps == result["training_steps"] <= 200
    assert baseline["validation"]["final"]["accuracy"] >= result["validation"]["initial"]["accuracy"]


def test_what_was_killed_goes_on_with_the_same_result(project, tmp_path, monkeypatch):
    copy = shutil.copytree(
        project, tmp_path / "copy", ignore=shutil.ignore_patterns("minimized", ".selfscale")
    )
    monkeypatch.chdir(copy)
    real, calls = Execution.decided, []

    def dying(execution, number, seconds):
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(execution, number, seconds)

    monkeypatch.setattr(Execution, "decided", dying)
    with pytest.raises(KeyboardInterrupt):
        run_minimization(settings_of(), JOB)
    run_minimization(settings_of(), JOB)
    assert calls == list(range(1, len(calls) + 1))
    assert contents(copy / JOB.output) == contents(project / JOB.output)


def test_comparison_register_curve_and_pick(project):
    settings = settings_of()
    page = compare.compare(settings)
    assert "| shapes | taylor | 0 | 6, 6 → " in page
    assert "data of its own" not in page and "1/accuracy" in Path("reports/index.html").read_text("utf-8")
    assert register.register(settings, "shapes").champion == 1
    smallest = min(read(JOB.result)["kept"], key=lambda point: point["macs_per_pixel"])
    picked = pick.pick(settings, "shapes", max_macs=smallest["macs_per_pixel"])
    assert picked["decision"] == smallest["decision"] and pick.unpick("shapes")
    mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")
    model = mlflow.pyfunc.load_model("models:/selfscale-shapes@champion")
    assert model.metadata.signature.inputs.inputs[0].shape == (-1, 8, 8, 1)
    compact = keras.saving.load_model(JOB.output / "compact.keras", compile=False)
    x = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    np.testing.assert_allclose(model.predict(x), compact(x), atol=1e-6)
    version = mlflow.MlflowClient().get_model_version_by_alias("selfscale-shapes", "champion")
    assert "the problem `own_shapes:shapes`" in version.description and "gray" not in version.description


def test_other_code_is_another_state(project, tmp_path, monkeypatch):
    before = inputs.look(settings_of(), Path("data/inputs"))["tasks"]
    for room in ("library", "pipeline"):
        shutil.copytree(inputs.PACKAGE / room, tmp_path / room)
    monkeypatch.setattr(inputs, "PACKAGE", tmp_path)
    assert inputs.look(settings_of(), Path("data/inputs"))["tasks"] == before
    manifest = problems.describe(settings_of(), "shapes", tmp_path / "targets")
    for changed in ("library/loop.py", "pipeline/problems.py", "pipeline/train.py"):
        with (tmp_path / changed).open("a") as file:
            file.write("# more\n")
        now = inputs.look(settings_of(), Path("data/inputs"))["tasks"]
        assert (now != before) == (changed != "pipeline/train.py"), "the stage of training depends on it"
        before = now
    files = contents(tmp_path / "targets")
    assert problems.describe(settings_of(), "shapes", tmp_path / "targets") == manifest
    assert contents(tmp_path / "targets") != files  # which DVC sees, and no comparison of champions
    with (project / "own_shapes.py").open("a") as file:
        file.write("# more\n")
    assert inputs.look(settings_of(), Path("data/inputs"))["tasks"] != before


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing", "own_shapes:nothing must return a selfscale.Problem, not a int"),
        ("fails", "own_shapes:fails: RuntimeError: no data today"),
        ("subclassed", "subclassed"),
        ("no_model", "own_shapes:no_model: model: must be a keras.Model, not a str"),
        ("no_loss", "loss: the model is not compiled; compile it, or give loss= and optimizer="),
        ("no_data", "own_shapes:no_data: test: must be a tf.data.Dataset"),
        ("larger", r"test: inputs are of shape \(5, 9, 9, 1\), but the model takes"),
        ("rates", "metric: auc(_\\d+)? gives one number a batch, but one value per example decides"),
        ("layer", "protect: nothing else may be removed"),
        ("unlearnable", "the loss is not a finite number; lower the learning rate"),
        ("missing", "'missing' is unknown; valid: "),
    ],
)
def test_a_problem_of_no_use_is_one_line(project, tmp_path, monkeypatch, function, message):
    settings = settings_of({"tasks": {"shapes": {"problem": f"own_shapes:{function}"}}})
    monkeypatch.setattr(Training, "folder", tmp_path)
    with pytest.raises(UserError, match=f"^tasks.shapes.problem: .*({message})") as raised:
        train(settings, TRAINING)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks.shapes.operator": "sobel"}, "tasks.shapes: name an operator, .*; not operator and problem"),
        ({"tasks.shapes.loss": "mae"}, "tasks.shapes: loss is that of an operator or of targets"),
        ({"tasks.shapes.problem": "own_shapes"}, "tasks.shapes.problem: string should match pattern"),
        ({"tasks.shapes.metric": "accuracy"}, "tasks.shapes: 'metric' is unknown"),
        (
            {"strategies.taylor.select": "cosine"},
            "strategies.taylor, for the problem .*'cosine' is unknown",
        ),
        ({"strategies.taylor.scaling": True}, "strategies.taylor, for the problem shapes: its model neither"),
        ({"minimization.target": 0.5}, "minimization.target: is for operators and targets"),
    ],
)
def test_settings_of_no_use_are_one_line(tmp_path, changes, message):
    content = json.loads(json.dumps(SETTINGS))
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = content
        for name in sections:
            section = section[name]
        section[last] = value
    (tmp_path / "params.yaml").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        loading.load(tmp_path / "params.yaml")


def test_unknown_arguments_and_what_makes_no_sense_are_one_line(project):
    wrong = settings_of({"tasks": {"shapes": TASK | {"arguments": {"width": "six"}}}})
    with pytest.raises(UserError, match=r"tasks\.shapes\.arguments\.width: input should be a valid integer"):
        problems.describe(wrong, "shapes", TARGETS / "shapes")
    for refused in (
        lambda: run_worth(settings_of(), "shapes", 0),
        lambda: scale(settings_of(), JOB),
        lambda: train(settings_of(), Training("shapes", 0, (5, 5))),
        lambda: run_minimization(settings_of(), JOB, snapshot=Path("x.npz")),
    ):
        with pytest.raises(UserError, match="is for operators and targets; shapes is a problem"):
            refused()
