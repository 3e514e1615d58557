"""Picking a network for the registry; all results are made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from comparisons import WAY_JOBS, WAYS
from selfscale.data_config import Task
from selfscale.errors import UserError
from selfscale.files import save_model, write_json
from selfscale.inference.latency import Speed
from selfscale.nn.fcn import build
from selfscale.paths import PICKS
from selfscale.pipeline import pick as picking
from selfscale.reporting.pareto import Candidate, candidates
from selfscale.settings import Runs, Settings, Strategy


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(picking, "speeds", by_size)
    for job in WAY_JOBS:
        write_json(job.output / "result.json", WAYS[job.name])
    return Settings(
        runs=Runs(tasks=["sobel"], strategies=["random"], seeds=[0, 1]),
        tasks={"sobel": Task(operator="sobel", loss="mae"), "canny": Task(operator="canny", loss="mae")},
        strategies={"random": Strategy(select="random")},
    )


def by_size(settings: Settings, points: list[Candidate], task: str) -> dict[Path, Speed]:
    """As if a network took a millisecond for every hundred multiply-accumulates."""
    return {point.path: Speed(point.macs_per_pixel / 100, 1.0) for point in points}


@pytest.mark.parametrize(("wanted", "macs"), [({"max_macs": 199.0}, 150.0), ({"max_ms": 1.2}, 100.0)])
def test_pick(settings, wanted, macs):
    found = picking.pick(settings, "sobel", **wanted)
    assert (found["macs_per_pixel"], found["ms_per_megapixel"]) == (macs, macs / 100)
    written = json.loads(PICKS.read_text())["sobel"]
    paths = {each.macs_per_pixel: each.path for each in candidates(WAYS, WAY_JOBS)}
    assert Path(written["path"]) == paths[macs]


def test_nothing_is_picked_if_nothing_is_like_that(settings):
    with pytest.raises(UserError, match="there are 100 to 200 multiply-accumulates per pixel with"):
        picking.pick(settings, "sobel", max_macs=99.0)
    assert not PICKS.exists()


def test_what_was_picked_is_what_is_registered(settings):
    assert picking.picked(WAYS, "sobel") is None
    found = picking.pick(settings, "sobel", max_macs=199.0)
    save_model(build([1], kernel=1), Path(found["path"]))
    result, path = picking.picked(WAYS, "sobel")
    assert path == Path(found["path"])
    assert (result["macs_per_pixel"], result["filters_kept"]) == (150.0, [1])
    assert result["test"] == {"initial": {"mae": 0.011}, "final": {"mae": 0.005}}
    assert picking.unpick("sobel")
    assert picking.picked(WAYS, "sobel") is None
    assert not picking.unpick("sobel")


def test_a_pick_that_is_there_no_more_is_told_and_the_rule_decides(settings, caplog):
    found = picking.pick(settings, "sobel", max_macs=199.0)
    assert picking.picked(WAYS, "sobel") is None  # its file is not there
    save_model(build([1], kernel=1), Path(found["path"]))
    other = WAYS | {WAY_JOBS[1].name: WAYS[WAY_JOBS[1].name] | {"kept": []}}
    assert picking.picked(other, "sobel") is None
    assert caplog.text.count("the network that was picked for sobel is there no more") == 2


@pytest.mark.parametrize("content", ["[]", '{"sobel": 3}'])
def test_a_damaged_file_of_picks_is_named(settings, content):
    PICKS.write_text(content)
    with pytest.raises(UserError, match=r"picks\.json: is damaged"):
        picking.picked(WAYS, "sobel")


def test_a_task_without_results_is_named(settings):
    with pytest.raises(UserError, match=r"canny: is not in runs\.tasks, so it has no results"):
        picking.pick(settings, "canny", max_macs=1.0)
    with pytest.raises(UserError, match="task: 'cany' is unknown"):
        picking.pick(settings, "cany", max_macs=1.0)
    (WAY_JOBS[1].output / "result.json").unlink()
    with pytest.raises(UserError, match="run `selfscale minimize sobel --strategy random --seed 1` first"):
        picking.pick(settings, "sobel", max_macs=1.0)
