"""What DVC's views show of the results, and that it fits a terminal of 120 columns."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from comparisons import INTERVAL
from selfscale.paths import Job
from selfscale.pipeline import views
from selfscale.reporting.statistics import BASELINE
from workspaces import CHECKOUT

WIDTH = 120
SETTINGS = YAML(typ="safe").load((CHECKOUT / "params.yaml").read_text(encoding="utf-8"))
RUNS = SETTINGS["runs"]


def result(task: str, seed: int, macs: float, test: float) -> dict:
    point = {"decision": 2, "filters_kept": [2], "parameters": macs + 6, "macs_per_pixel": macs}
    return {
        **{"task": task, "seed": seed, "loss": "mae", "filters_initial": [5, 5], "parameters_initial": 886},
        **{"parameters": macs + 6, "macs_per_pixel": macs, "macs_per_pixel_initial": 875.0},
        **{split: {"initial": {"mae": 0.02}, "final": {"mae": test}} for split in ("validation", "test")},
        "kept": [{**point, "validation": test, "test": test, "test_interval": INTERVAL}],
        "test_interval": {"initial": INTERVAL, "final": INTERVAL},
    }


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A checkout with the views of two seeds, but without the results that they come from."""
    for name in (".dvc/config", "dvc.yaml", "params.yaml", ".dvcignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(CHECKOUT / name, tmp_path / name)
    shutil.copytree(CHECKOUT / ".dvc/plots", tmp_path / ".dvc/plots")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / ".dvc/site"))
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    subprocess.run(["git", "init", "--quiet"], check=True)
    jobs = [Job(task, name, seed) for task in RUNS["tasks"] for name in RUNS["strategies"] for seed in (0, 1)]
    results = {job.name: result(job.task, job.seed, 100.0 + 50 * job.seed, 0.01) for job in jobs}
    groups = {
        task: {name: [results[Job(task, name, seed).name] for seed in (0, 1)] for name in RUNS["strategies"]}
        | {BASELINE: [result(task, seed, 875.0, 0.004) for seed in (0, 1)]}
        for task in RUNS["tasks"]
    }
    champions = {task: groups[task]["cosine"][0] for task in RUNS["tasks"]}
    views.write_views(groups, results, jobs, champions)
    return tmp_path


def dvc(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_metrics_are_means_over_the_seeds(project):
    found = {path.stem: json.loads(path.read_text()) for path in Path("reports/metrics").iterdir()}
    assert found["sobel-cosine"] == {"macs": 125, "parameters": 131, "test": 0.01, "ratio": 2.5}
    assert found["sobel-baseline"] == {"macs": 875, "parameters": 881, "test": 0.004, "ratio": 1}
    assert found["champions"] == {"sobel": 0.01, "sobel%": 11.43, "canny": 0.01, "canny%": 11.43}


def test_dvc_shows_a_row_for_each_task_and_strategy(project):
    lines = dvc("metrics", "show").splitlines()
    assert len(lines) == 1 + len(RUNS["tasks"]) * (len(RUNS["strategies"]) + 1) + 1
    assert max(map(len, lines)) <= WIDTH
    assert "\u2026" not in "".join(lines)


def test_dvc_draws_curves_frontier_and_comparison(project):
    dvc("plots", "show", "--out", "plots")
    page = Path("plots/index.html").read_text(encoding="utf-8")
    assert len(re.findall(r"vegaEmbed\(", page)) == 3
    for title in ("test score by decision", "the best network of each size", "comparison with the baseline"):
        assert f'"title": "{title}"' in page
    shown = page.count('"filename": "reports/plots/')
    rows = [list(csv.DictReader(path.open())) for path in Path("reports/plots").iterdir()]
    assert shown == sum(map(len, rows)) > 20
    assert "<DVC_METRIC" not in page


def test_the_graph_is_shown_by_stage(project):
    graph = dvc("dag", "--collapse-foreach-matrix", "--md")
    stages = YAML(typ="safe").load(Path("dvc.yaml").read_text())["stages"]
    assert set(re.findall(r'\["(.*?)"\]', graph)) == set(stages)
    assert max(map(len, graph.splitlines())) <= WIDTH


def test_artifacts_are_the_minimized_networks_of_the_settings(project):
    found = YAML(typ="safe").load(Path("dvc.yaml").read_text())["artifacts"]
    wanted = {
        f"{task}-{name}": {
            "path": f"{Job(task, name, RUNS['seeds'][0]).output}/compact.keras",
            "type": "model",
        }
        for task in RUNS["tasks"]
        for name in RUNS["strategies"]
    }
    assert found == wanted


def test_dvc_gets_an_artifact_by_its_name(tmp_path, monkeypatch):
    shutil.copytree(CHECKOUT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    path = Path("models/minimized/sobel-cosine-seed-0/compact.keras")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a network")
    Path("dvc.yaml").write_text(
        f"stages:\n  minimize:\n    cmd: echo\n    outs: [{path.parent}]\n"
        f"artifacts:\n  sobel-cosine: {{path: {path}, type: model}}\n"
    )
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", "init", "--quiet"], check=True)
    dvc("commit", "--force")
    subprocess.run(["git", "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "x"], check=True)
    subprocess.run([*git, "tag", "--annotate", "--message", "x", "sobel-cosine@v1.0.0"], check=True)
    dvc("artifacts", "get", ".", "sobel-cosine", "--out", "got.keras")
    assert Path("got.keras").read_bytes() == b"a network"
