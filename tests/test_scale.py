"""`selfscale scale`, `pick` and `register` from a single filter, in a tiny project."""

from __future__ import annotations

import functools
import re
import shutil
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from test_app import assert_one_line, command, no_server  # noqa: F401

from selfscale import files
from selfscale.nn.fcn import filters_per_layer
from selfscale.paths import Job
from selfscale.pipeline import compare as report
from selfscale.pipeline import minimize as minimizing
from selfscale.settings import Settings
from workspaces import (
    CHECKOUT,
    OWN_PHOTOGRAPHS,
    change_params,
    contents,
    die,
    new_project,
    prepare,
    selfscale,
    trained_project,
)

JOB = Job("sobel", "scale_from_one", 0, (1,))
SETTINGS = {
    "network.init_deviation": 0.3,
    "growth.steps": 60,
    "growth.min_gain": 0.0,
    "growth.select": "uniform",
    "growth.tries": 2,
    "scaling.max_steps": 300,
    "minimization.limits.decisions": 2,
    "runs.tasks": ["sobel"],
    "runs.strategies": ["scale_from_one"],
}
WORDS = ("scale", "sobel", "--strategy", "scale_from_one")


def new(folder: Path) -> Path:
    new_project(folder, OWN_PHOTOGRAPHS | SETTINGS)
    prepare(folder)
    return folder


@functools.cache
def scaled() -> Path:
    folder = trained_project().parent / "scaled"
    new(folder)
    done = selfscale(folder, *WORDS)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"sobel, seed 0: 18 -> \d+ multiply-accumulates per pixel, filters \[.+\], "
        r"test mae \S+ -> \S+, \d+ training steps\n",
        done.stdout,
    )
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    folder = shutil.copytree(scaled(), tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("strategy", "mode", "limit", "steps"),
    [
        ("scale_from_large", None, 11500, 31500),
        ("scale_from_large", None, None, None),
        ("scale_from_large", "both", 11500, 11500),
        ("scale", None, 11500, 11500),
        ("scale", "shrink", 11500, 31500),
        ("random", None, 11500, 11500),
    ],
)
def test_where_nothing_grows_its_steps_are_for_removals(strategy, mode, limit, steps):
    content = yaml.safe_load((CHECKOUT / "params.yaml").read_text(encoding="utf-8"))
    content["minimization"]["limits"]["steps"] = limit
    content["scaling"]["mode"] = mode
    content["runs"].update(tasks=["sobel"], strategies=[strategy], seeds=[0])
    settings = Settings.model_validate(content)
    (job,) = report.jobs(settings)
    found = minimizing.minimization_of(settings, job, minimizing.growing_of(settings, job))
    assert found == settings.minimization.model_copy(
        update={"limits": settings.minimization.limits.model_copy(update={"steps": steps})}
    )


def test_it_trains_its_own_start_and_grows(project):
    initial = keras.saving.load_model(project / JOB.output / "start/initial.keras")
    assert filters_per_layer(initial) == (1,)
    result = files.read_json(JOB.output / "result.json", "")
    assert result["filters_initial"] == [1]
    assert result["macs_per_pixel"] > result["macs_per_pixel_initial"], "nothing was gained"
    decisions = files.read_json(JOB.output / "decisions.json", "")
    steps = sum(decision["session"]["steps"] + decision["selection_steps"] for decision in decisions)
    assert result["training_steps"] == steps


def test_its_removed_filters_can_be_seen(project, command):  # noqa: F811
    keras.utils.save_img("a.png", np.random.default_rng(0).random((40, 40, 1)))
    ended = command("visualize", str(JOB.output), "a.png", "--out", "pictures")
    assert ended.code == 0, ended
    layers = len(files.read_json(JOB.output / "result.json", "")["filters_grown"])
    assert len(list(Path("pictures").glob("kernels-*.png"))) == layers + 1  # and the output's


def test_every_network_that_was_kept_is_there(project):
    decisions = files.read_json(JOB.output / "decisions.json", "")
    result = files.read_json(JOB.output / "result.json", "")
    accepted = {decision["number"]: decision for decision in decisions if decision["accepted"]}
    assert [kept["decision"] for kept in result["kept"]] == list(accepted)
    for kept in result["kept"]:
        network = keras.saving.load_model(JOB.output / f"kept/{kept['decision']:03}.keras")
        left = [filters for filters in accepted[kept["decision"]]["filters_kept"] if filters]
        assert list(filters_per_layer(network)) == left
        assert network.count_params() == kept["parameters"]
        assert kept["validation"] == accepted[kept["decision"]]["score"]
    assert result["kept"][-1]["test"] == pytest.approx(result["test"]["final"]["mae"])


def test_killed_in_the_growth_it_goes_on(tmp_path, command, monkeypatch):  # noqa: F811
    folder = new(tmp_path / "project")
    assert die(folder, "selfscale.search.attempt:grown", 1, signal.SIGKILL, *WORDS) == -signal.SIGKILL
    moved = folder.rename(tmp_path / "moved")
    monkeypatch.chdir(moved)
    assert command(*WORDS).code == 0
    assert contents(moved / JOB.output) == contents(scaled() / JOB.output)


def test_a_network_from_the_curve_is_picked_and_registered(project, command):  # noqa: F811
    for words in (["train", "sobel"], ["budget"], ["baseline", "sobel"], ["compare"]):
        assert command(*words).code == 0
    assert (project / "reports/figures/frontier-sobel.png").exists()
    result = files.read_json(JOB.output / "result.json", "")
    first = result["kept"][0]
    lines = command("curve", "sobel").out.splitlines()
    macs = [float(line.split()[0]) for line in lines]
    assert macs == sorted(set(macs))
    assert all(
        re.search(r", [\d.]+ ms per megapixel, validation score .+ models/.+\.keras$", line) for line in lines
    )
    ended = command("pick", "sobel", "--max-macs", str(first["macs_per_pixel"]))
    assert ended.code == 0
    chosen = files.read_json(Path("picks.json"), "")["sobel"]
    assert chosen["macs_per_pixel"] <= first["macs_per_pixel"]
    assert f"{chosen['macs_per_pixel']:g} multiply-accumulates per pixel" in ended.out
    assert "ms per megapixel" in ended.out
    assert command("register").out.startswith("selfscale-sobel version 1: champion")


@pytest.mark.parametrize(
    ("changes", "words", "parts"),
    [
        ({"growth.select": "gradiant"}, WORDS, ["growth.select: 'gradiant' is unknown", "'gradient'"]),
        (
            {"scaling.max_macs_per_pixel": 10.0, "minimization.limits.macs_per_pixel": 20.0},
            WORDS,
            ["scaling.max_macs_per_pixel: 10 is below minimization.limits.macs_per_pixel, 20"],
        ),
        ({"scaling.max_macs_per_pixel": 17.0}, WORDS, ["the start has", "18 multiply-accumulates"]),
        ({"scaling.max_parameters": 19}, WORDS, ["the start has 20 parameters", "max_parameters"]),
        ({"scaling.mode": "grown"}, WORDS, ["scaling.mode", "grow"]),
        ({"training.optimizer": "adm"}, WORDS, ["training.optimizer: 'adm' is unknown", "'adam'"]),
        ({"training.arguments": {"beta": 1}}, WORDS, ["training.optimizer: 'beta' is unknown", "beta_1"]),
        (
            {"minimization.target": 10.0},
            ("scale", "sobel", "--strategy", "scale_from_one"),
            ["minimization.target: 10 is no better than the same output everywhere"],
        ),
        (
            {"minimization.target": 1e-6, "scaling.max_steps": 20, "growth.steps": 20},
            ("scale", "sobel", "--strategy", "scale_from_one"),
            [
                "minimization.target: 1e-06 was not reached with confidence: the best network found has",
                "models/",
            ],
        ),
        ({}, ("scale", "sobel", "--strategy", "random"), ["strategies.random.scaling: is false"]),
        ({}, ("train", "sobel", "--start", "5,x"), ["--start: expected filters", "'5,x'"]),
        ({}, ("pick", "sobel"), ["name one of --max-macs, --min-score, --max-ms and --clear"]),
        ({}, ("pick", "sobel", "--max-macs", "1"), ["no network is like that; there are"]),
    ],
)
def test_bad_input_is_one_line(project, command, changes, words, parts):  # noqa: F811
    change_params(project / "params.yaml", changes)
    assert_one_line(command(*words), *parts)
