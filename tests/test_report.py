from __future__ import annotations

import pytest

from selfscale import report
from selfscale.config import Runs
from selfscale.errors import UserError
from selfscale.files import read_json, write_json


def result(task: str, strategy: str, macs: float, score: float) -> dict:
    scores = {"initial": {"mae": 0.005}, "final": {"mae": score}}
    return {
        "task": task,
        "strategy": strategy,
        "seed": 0,
        "loss": "mae",
        "filters_initial": [5, 5],
        "filters_kept": [3, 2],
        "parameters_initial": 886,
        "parameters": 281,
        "macs_per_pixel_initial": 875.0,
        "macs_per_pixel": macs,
        "validation": scores,
        "test": scores,
        "decisions": 12,
        "accepted": 5,
        "reverted": 7,
        "training_steps": 5800,
    }


def test_the_table_has_a_line_per_result(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = Runs(tasks=["sobel"], strategies=["random", "cosine"], seeds=[0])
    for strategy in runs.strategies:
        path = tmp_path / "models" / "minimized" / f"sobel-{strategy}-seed-0" / "result.json"
        write_json(path, result("sobel", strategy, 275.0, 0.004))
    report.compare(runs)
    lines = (tmp_path / "reports" / "comparison.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    assert "5, 5 → 3, 2" in lines[2]
    assert "mae 0.005 → 0.004" in lines[2]
    results = read_json(tmp_path / "reports" / "comparison.json", "compare")
    assert list(results) == ["sobel-random-seed-0", "sobel-cosine-seed-0"]


def test_a_missing_result_names_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="selfscale minimize sobel --strategy random --seed 4"):
        report.compare(Runs(tasks=["sobel"], strategies=["random"], seeds=[4]))


def test_the_best_is_the_smallest_then_the_most_accurate():
    found = [
        result("sobel", "random", 300, 0.003),
        result("sobel", "sequential", 200, 0.005),
        result("sobel", "cosine", 200, 0.004),
        result("canny", "random", 100, 0.001),
    ]
    results = {f"{r['task']}-{r['strategy']}": r for r in found}
    assert report.best(results, "sobel")["strategy"] == "cosine"
