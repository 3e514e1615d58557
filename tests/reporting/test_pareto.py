"""The curve of score against size, and the choice of a network from it; all results are made up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from selfscale.errors import UserError
from selfscale.files import save_model, write_json
from selfscale.nn.fcn import build
from selfscale.paths import PICKED, Job
from selfscale.pipeline import pick as picking
from selfscale.reporting import pareto as curve
from selfscale.settings import Runs, Settings, Strategy, Task


def kept(decision: int, macs: float, validation: float, test: float) -> dict:
    return {
        "decision": decision,
        "filters_kept": [decision],
        "parameters": int(macs) + 1,
        "macs_per_pixel": macs,
        "validation": validation,
        "test": test,
    }


def result(*on_the_way: dict) -> dict:
    return {
        "loss": "mae",
        "filters_initial": [5, 5],
        "parameters_initial": 886,
        "macs_per_pixel_initial": 875.0,
        "validation": {"initial": {"mae": 0.010}},
        "test": {"initial": {"mae": 0.011}},
        "kept": list(on_the_way),
    }


JOBS = [Job("sobel", "random", seed) for seed in (0, 1)]
RESULTS = {
    # 300 is beaten by 200 on validation, however good it is on test.
    JOBS[0].name: result(
        kept(2, 300.0, 0.005, 0.001), kept(3, 200.0, 0.004, 0.006), kept(5, 100.0, 0.008, 0.007)
    ),
    JOBS[1].name: result(kept(1, 150.0, 0.006, 0.005)),
}


def test_the_initial_network_and_every_kept_one_are_points():
    found = curve.points(RESULTS, JOBS)
    assert [(p.seed, p.decision, p.macs_per_pixel) for p in found] == [
        (0, 0, 875.0), (0, 2, 300.0), (0, 3, 200.0), (0, 5, 100.0), (1, 0, 875.0), (1, 1, 150.0),
    ]  # fmt: skip
    assert found[0].path == Path("models/trained/sobel-seed-0/initial.keras")
    assert found[3].path == Path("models/minimized/sobel-random-seed-0/kept/005.keras")


def test_the_front_is_chosen_by_validation():
    found = curve.front(curve.points(RESULTS, JOBS[:1]))
    assert [(p.macs_per_pixel, p.test) for p in found] == [(100.0, 0.007), (200.0, 0.006)]


def test_the_mean_front_begins_where_every_seed_has_a_network():
    found = curve.mean_front(curve.points(RESULTS, JOBS))
    assert [(size, estimate.mean) for size, estimate in found] == [
        (150.0, pytest.approx((0.007 + 0.005) / 2)),
        (200.0, pytest.approx((0.006 + 0.005) / 2)),
    ]
    # Student's t for two values, by hand: t(0.975, 1) times half of their distance.
    assert found[0][1].half_width == pytest.approx(stats.t.ppf(0.975, 1) * 0.001)


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    for job in JOBS:
        write_json(job.output / "result.json", RESULTS[job.name])
    return Settings(
        runs=Runs(tasks=["sobel"], strategies=["random"], seeds=[0, 1]),
        tasks={"sobel": Task(operator="sobel", loss="mae"), "canny": Task(operator="canny", loss="mae")},
        strategies={"random": Strategy(select="random")},
    )


def by_size(path: Path) -> float:
    """As if a network took a millisecond for every hundred multiply-accumulates."""
    return next(p.macs_per_pixel for p in curve.points(RESULTS, JOBS) if p.path == path) / 100


@pytest.mark.parametrize(
    ("wanted", "macs"),
    [
        ({"max_macs": 1000.0}, 200.0),
        ({"max_macs": 199.0}, 150.0),
        ({"min_score": 0.006}, 150.0),
        ({"min_score": 0.0059}, 200.0),
        ({"max_ms": 1.2}, 100.0),
    ],
)
def test_pick(settings, wanted, macs):
    found = picking.pick(settings, "sobel", **wanted, milliseconds=by_size)
    assert (found["macs_per_pixel"], found["ms_per_megapixel"]) == (macs, macs / 100)
    written = json.loads((PICKED / "sobel.json").read_text())
    assert Path(written["path"]) == next(
        p.path for p in curve.points(RESULTS, JOBS) if p.macs_per_pixel == macs
    )


@pytest.mark.parametrize("wanted", [{"max_macs": 99.0}, {"min_score": 0.0039}, {"max_ms": 0.5}])
def test_nothing_is_picked_if_nothing_is_like_that(settings, wanted):
    with pytest.raises(UserError, match="there are 100 to 200 multiply-accumulates per pixel"):
        picking.pick(settings, "sobel", **wanted, milliseconds=by_size)
    assert not PICKED.exists()


def test_what_was_picked_is_what_is_registered(settings):
    assert picking.picked(RESULTS, "sobel") is None
    found = picking.pick(settings, "sobel", max_macs=199.0, milliseconds=by_size)
    with pytest.raises(UserError, match=r"sobel\.json: the network that was picked is there no more"):
        picking.picked(RESULTS, "sobel")
    save_model(build([1], kernel=1), Path(found["path"]))
    result, path = picking.picked(RESULTS, "sobel")
    assert path == Path(found["path"])
    assert (result["macs_per_pixel"], result["filters_kept"]) == (150.0, [1])
    assert result["test"] == {"initial": {"mae": 0.011}, "final": {"mae": 0.005}}
    other = RESULTS | {JOBS[1].name: result | {"kept": []}}
    with pytest.raises(UserError, match="pick again or delete it"):
        picking.picked(other, "sobel")


def test_a_task_without_results_is_named(settings):
    with pytest.raises(UserError, match=r"canny: is not in runs\.tasks, so it has no results"):
        picking.pick(settings, "canny", max_macs=1.0, milliseconds=by_size)
    with pytest.raises(UserError, match="task: 'cany' is unknown"):
        picking.pick(settings, "cany", max_macs=1.0, milliseconds=by_size)
    (JOBS[1].output / "result.json").unlink()
    with pytest.raises(UserError, match="run `selfscale minimize sobel --strategy random --seed 1` first"):
        picking.pick(settings, "sobel", max_macs=1.0, milliseconds=by_size)


def test_milliseconds_are_those_of_the_model(tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    save_model(build([1], kernel=1), path)
    clock = iter(np.cumsum([0.0, 0.1, 0.0, 0.3, 0.0, 0.2, 0.0, 0.5, 0.0, 0.4]))
    monkeypatch.setattr(picking.time, "perf_counter", lambda: float(next(clock)))
    assert picking.measured_milliseconds(path) == pytest.approx(300 / 1.048576)
