"""What MLflow's runs say, by the records on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selfscale import files
from selfscale.decisions import Filter
from selfscale.errors import UserError
from selfscale.tracking.records import Record, read
from stores import ABLATION, RESULT, STARTED, draw, record, write_clock, write_minimization, write_training


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "record"


def in_progress(folder: Path, *trials) -> Record:
    """A minimization in progress, read with its clock."""
    write_minimization(folder, trials, finished=False)
    found = read(folder, write_clock(folder / "clock.json", count=len(trials)))
    assert found
    return found


def test_a_minimization_in_progress(folder):
    found = in_progress(folder, record(1), record(2, accepted=False))
    assert (found.name, found.status, found.content) == ("random - seed 3", "RUNNING", "")
    assert found.tags == {"kind": "minimization", "task": "sobel", "strategy": "random", "seed": "3"}
    assert found.params == {"network.widths": [5, 5], "strategy": "random", "seed": 3, "changed": ""}
    points = found.chart(set())
    chart = {
        name: [(point.step, point.value) for point in points if point.metric == name]
        for name in {point.metric for point in points}
    }
    assert chart == {
        "score": [(0, 0.19), (1, 0.2), (2, 0.3)],
        "limit": [(1, 0.21), (2, 0.21)],
        "filters_kept": [(0, 10), (1, 9), (2, 8)],
        "layers_kept": [(0, 2), (1, 2), (2, 2)],
        "parameters": [(0, 900), (1, 899), (2, 898)],
        "macs_per_pixel": [(0, 800), (1, 799), (2, 798)],
        "score_accepted": [(0, 0.19), (1, 0.2)],
    }
    assert {point.at for point in points} == {STARTED, STARTED + 10, STARTED + 20}
    assert {point.step for point in found.chart({0, 1})} == {2}
    pictures = [(picture.key, picture.step, picture.at) for picture in found.pictures()]
    assert pictures == [("network on image 1", n, STARTED + 10 * n) for n in (0, 1)]


def test_a_decision_that_comes_while_the_record_is_read_waits_for_the_next_time(folder, monkeypatch):
    clock = folder / "clock.json"
    write_minimization(folder, [record(1)], finished=False)
    write_clock(clock, count=1)
    read_json = files.read_json

    def slow(path: Path, stage: str, schema: Any):
        """Of each file, as it is just before the job writes the clock and the next decision."""
        content = read_json(path, stage, schema)
        if path in (clock, folder / "decisions.json"):
            write_clock(clock, count=2)
            write_minimization(folder, [record(1), record(2)], finished=False)
        return content

    monkeypatch.setattr(files, "read_json", slow)
    found = read(folder, clock)
    assert [decision["number"] for decision in found.decisions] == [1]
    assert all(found.timed(decision["number"]) for decision in found.decisions)
    assert {picture.step for picture in found.pictures()} == {0, 1}


def test_what_differs_from_the_defaults_is_in_the_name_and_a_parameter(folder):
    settings = {"network": {"widths": [5, 4]}, "minimization": {"tolerance": 0.2}}
    found = read(write_minimization(folder, settings=settings), None)
    changed = "widths [5, 4], tolerance 0.2"
    assert found.params["changed"] == changed
    assert found.name == "random - seed 3 - widths [5, 4] - tolerance 0.2"


def test_what_a_decision_says(folder):
    found = in_progress(folder, record(1), record(2, accepted=False))
    (run,) = found.parts({"1"})
    shared = {"task": "sobel", "strategy": "random", "seed": "3", "decision": "2", "verdict": "reverted"}
    assert run.name == "2 disable layer 1 filter 3 - reverted"
    assert run.tags == {"kind": "decision", "decision": "2", "verdict": "reverted"}
    assert (run.start, run.end) == (STARTED + 18.5, STARTED + 20)
    assert run.params == shared | {
        "alteration": "disable",
        "tried": "layer 1 filter 3",
        "layer": "1",
        "filter": "3",
        "selection_score": 0.75,
        "started_from": 1,
        "reason": "above the limit",
    }
    assert {point.metric: point.value for point in run.points} == {
        "score": 0.3,
        "limit": 0.21,
        "relative_loss": 0.5,
        "relative_loss_bound": 0.7,
        "score_before_training": 0.4,
        "selection_score": 0.75,
        "filters_kept": 8,
        "layers_kept": 2,
        "parameters": 898,
        "macs_per_pixel": 798,
        "seconds": 1.5,
        "mae": 0.2,
        "uiqi": 0.8,
    }
    (session,) = run.children
    assert (session.name, session.tags["kind"]) == ("session 2", "session")
    assert session.params == shared | {"steps": 40, "ended": "completed"}
    assert [tuple(point) for point in session.points] == [
        *(("loss", 0.5, 20, None), ("loss", 0.25, 40, None)),
        *(("score", 0.3, 20, None), ("score", 0.2, 40, None)),
    ]
    assert session.files == [folder / "sessions/002.npz"]


def test_a_long_session_has_what_the_machine_did(folder):
    write_minimization(folder, [record(1)], finished=False)
    system = [[STARTED + 5 * n, {"cpu_utilization_percentage": 50.0 + n}] for n in range(2)]
    clock = write_clock(folder / "clock.json", decisions={"1": {"at": 1.0, "seconds": 1.0, "system": system}})
    (decision,) = read(folder, clock).parts(set())
    name = "system/cpu_utilization_percentage"
    assert [tuple(point) for point in decision.children[0].points if point.metric == name] == [
        (name, 50.0, 0, STARTED),
        (name, 51.0, 1, STARTED + 5),
    ]


def test_a_name_of_many_filters_is_cut(folder):
    filters = tuple(Filter(0, index) for index in range(50))
    (run,) = in_progress(folder, record(1, filters=filters)).parts(set())
    assert run.name.startswith("1 disable layer 0 filter 0, layer 0 filter 1,")
    assert run.name.endswith("... - accepted")
    assert len(run.name) < 140


def test_a_finished_minimization(folder):
    found = read(write_minimization(folder), None)
    assert (found.status, found.content, found.key) == ("FINISHED", files.content(folder), "")
    assert (found.start, found.end) == (None, None)
    points = {point.metric: point.value for point in found.final_points()}
    assert (points["filters_initial"], points["filters_kept"], points["filters_kept_1"]) == (10, 3, 1)
    assert (points["parameters"], points["macs_per_pixel"]) == (130, 125)
    assert (points["test_initial_mae"], points["test_final_mae"]) == (0.013, 0.012)
    assert (points["accepted"], points["reverted"]) == (1, 1)
    assert "seed" not in points
    assert found.facts() == {"macs": "15%", "validation": "0.012", "test": "0.012"}
    steps = {point.metric: point.step for point in found.final_points()}
    assert {steps.pop(name) for name in ("filters_kept", "parameters", "macs_per_pixel")} == {3}
    assert set(steps.values()) == {0}  # of which MLflow draws bars
    names = ["compact.keras", "decisions.json", "network.png", "result.json", "run.json"]
    assert [path.name for path in found.artifacts()] == names
    note = found.note("12ab")
    assert note.startswith("`random`, seed 3, found a network for sobel with 3 filters in 2 hidden layers")
    assert "(get-artifact?path=network.png&run_uuid=12ab)" in note
    assert "Filters 5, 5 → 2, 1" in note
    assert "| test | mae | 0.013 | 0.012 |" in note


def test_decisions_without_a_clock_have_no_seconds(folder):
    for run in read(write_minimization(folder), None).parts(set()):
        assert "seconds" not in {point.metric for point in run.points}
        assert (run.start, run.end) == (None, None)


def test_the_clock_of_another_record_is_left_out(folder, tmp_path):
    clock = write_clock(tmp_path / "clock.json", write_minimization(folder))
    assert read(folder, clock).key
    write_minimization(folder, [record(1)])
    assert read(folder, clock).key == ""


def test_a_training_and_a_baseline(folder, tmp_path):
    system = [[STARTED + 5, {"system_memory_usage_megabytes": 100.0}]]
    clock = write_clock(tmp_path / "clock.json", write_training(folder), system=system)
    found = read(folder, clock)
    assert (found.name, found.tags) == (
        "training - seed 3",
        {"kind": "training", "task": "sobel", "seed": "3"},
    )
    assert found.note("") == "stagnated after 40 steps"
    points = [tuple(point) for point in found.final_points()]
    assert points[:4] == [
        *(("loss", 0.5, 20, None), ("loss", 0.25, 40, None)),
        *(("score", 0.3, 20, None), ("score", 0.2, 40, None)),
    ]
    assert ("test_mae", 0.01, 0, None) in points
    assert ("system/system_memory_usage_megabytes", 100.0, 0, STARTED + 5) in points
    baseline = read(write_training(tmp_path / "baseline", "baseline"), None)
    assert baseline.tags["kind"] == "baseline"
    assert baseline.note("") == "40 steps; the initial network is better on validation."


def test_nothing_to_show(folder):
    assert read(folder, None) is None
    assert read(folder.with_suffix(".json"), None) is None
    write_minimization(folder, finished=False)
    assert read(folder, folder / "clock.json") is None
    (folder / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json: is damaged"):
        read(folder, None)


def test_an_ablation(tmp_path):
    path = tmp_path / "worth-sobel-seed-3.json"
    files.write_json(path, ABLATION)
    draw(path.with_suffix(".png"), 1)
    found = read(path, None)
    assert (found.name, found.tags["kind"]) == ("worth - seed 3", "worth")
    assert found.params == {"session_steps": 40, "task": "sobel", "seed": 3, "loss": "mae"}
    assert found.artifacts() == [path, path.with_suffix(".png")]
    assert found.note("") == (
        "Score: mae on 12 validation images, lower is better; the untouched network has 0.1. Differences "
        "are relative, with their 95% intervals over the images; the baseline trained as long with nothing "
        "altered.\n\nbaseline: score 0.4, after the session 0.2, +100.0% (+90.0% to +110.0%)"
    )
    (run,) = found.parts(set())
    assert list(found.parts({"disabled 0 3"})) == []
    assert run.name == "disabled layer 0 filter 3"
    assert run.tags == {"kind": "worth_test", "test": "disabled", "layer": "0", "filter": "3"}
    assert run.params["successor"] == "layer 0 filter 1"
    assert {point.metric: (point.step, point.value) for point in run.points} == {
        "score": (40, 0.2),
        "reference": (0, 0.1),
        "score_before_training": (0, 0.4),
        "difference": (0, 1.0),
        "difference_low": (0, 0.9),
        "difference_high": (0, 1.1),
        "against_baseline": (0, 0.5),
        "against_baseline_low": (0, 0.4),
        "similarity": (0, 0.8),
        "similarity_before": (0, 0.3),
        "moved_1_0": (0, 0.25),
    }


def test_records_are_read_without_mlflow_and_nothing_is_pickled():
    code = "import sys, selfscale.tracking.sync; print({'mlflow', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    source = Path(sys.modules[Record.__module__].__file__).parent
    assert not [path for path in source.glob("*.py") if "pickle" in path.read_text()]


def test_the_sum_of_a_result_is_that_of_its_list(folder):
    write_minimization(folder)
    files.write_json(folder / "result.json", RESULT | {"filters_kept": [4, 0, 1]})
    points = {point.metric: point.value for point in read(folder, None).final_points()}
    assert [points[f"filters_kept{end}"] for end in ("", "_0", "_1", "_2")] == [5, 4, 0, 1]


@pytest.mark.parametrize("name", ["pictures/001/1.png", "network.png"])
def test_a_picture_that_is_cut_off_is_not_shown(folder, name):
    path = write_minimization(folder) / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=f"{name}: is damaged; run `selfscale minimize"):
        read(folder, None)


def test_an_empty_curve_is_not_shown(folder):
    files.write_bytes(write_training(folder) / "curve.csv", b"")
    with pytest.raises(UserError, match=r"curve\.csv: is empty; run `selfscale train"):
        read(folder, None)
