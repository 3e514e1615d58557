"""The whole pipeline under DVC, in a project of its own made from this checkout's files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML
from test_app import command  # noqa: F401

from forks import fork
from pages import blocks
from selfscale.paths import Job
from selfscale.pipeline.execution import clock_of
from selfscale.pipeline.pick import pick
from selfscale.pipeline.register import register
from selfscale.settings import load
from selfscale.tracking.champions import measured
from selfscale.tracking.store import open_store
from stores import runs
from workspaces import CHECKOUT, TINY, change_params, own_store, save_photographs

pytestmark = pytest.mark.pipeline

ALWAYS = {"inputs", "register"}  # stages that run each time

CHANGES = {
    "runs.strategies": ["sequential"],
    "data.size": 96,
    "training.crop": 32,
    "minimization.layers.tries": 2,
    "minimization.limits.decisions": 4,
}
TASKS = ("sobel", "canny")
JOBS = [Job(task, "sequential", 0) for task in TASKS]
OUTPUTS = {"compact.keras", "curve.csv", "decisions.json", "network.png", "pictures", "removed_filters.npy"}
OUTPUTS |= {"result.json"}
KEYS = {
    *("task", "strategy", "seed", "filters_initial", "filters_kept", "parameters", "macs_per_pixel"),
    *("validation", "test", "decisions", "accepted", "reverted", "training_steps"),
}


# As `python -m dvc`, which imports these anew each time.
DVC_IMPORTS = "import dvc.cli, dvc.cli.parser, dvc.repo, dvc.repo.experiments, dvc.stage.run"
DVC = "import sys; from dvc.cli import main; sys.exit(main(sys.argv[1:]))"


class Project(NamedTuple):
    """A folder with Git and DVC, whose stages are this environment's `selfscale`."""

    root: Path

    def run(self, *words: str) -> str:
        """A command's standard output; it has to succeed, without noise of the libraries."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DVC_"))}
        environment = kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "src",  # so that the stages run the modules that they depend on
            "DVC_SITE_CACHE_DIR": str(self.root.parent / "dvc"),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        if words[0] == "dvc":
            code, *printed = fork(DVC_IMPORTS, self.root, DVC, *words[1:], environment=environment)
        else:
            done = subprocess.run(
                words, cwd=self.root, env=environment, capture_output=True, text=True, check=False
            )
            code, *printed = done.returncode, done.stdout, done.stderr
        output = "".join(printed)
        assert code == 0, output
        assert not re.search(r"Traceback|Warning|cuInit|ms/step", output), output
        return output

    def dvc(self, *words: str) -> str:
        return self.run("dvc", *words)

    def selfscale(self, *words: str) -> str:
        return self.run("selfscale", *words)

    def clone(self, folder: Path) -> Project:
        """What a colleague has who knows the repository alone, with a DVC cache of his own."""
        folder.mkdir(parents=True, exist_ok=True)
        self.run("git", "clone", "--quiet", str(self.root), str(folder / "clone"))
        return Project(folder / "clone")

    def commit(self) -> str:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "Run")
        return self.run("git", "rev-parse", "HEAD").strip()

    def json(self, path: Path | str) -> Any:
        return json.loads((self.root / path).read_text())

    def copy(self, folder: Path) -> Project:
        return Project(shutil.copytree(self.root, folder / "copy"))


class Repro(NamedTuple):
    project: Project
    output: str
    commit: str  # that the runs were made from


@pytest.fixture(scope="module", autouse=True)
def no_server() -> Iterator[None]:
    with own_store():
        yield


@pytest.fixture(scope="module")
def repro(tmp_path_factory) -> Repro:
    """`dvc repro` with the default settings, but for their size. Tests that change it take a copy."""
    project = Project(tmp_path_factory.mktemp("pipeline") / "project")
    for pattern in (
        ".dvc/config",
        ".dvc/.gitignore",
        ".dvcignore",
        ".gitignore",
        "*.yaml",
        "picks.json",
        "src/selfscale/**/*.py",
        "src/selfscale/**/*.html",
        "benchmarks/*.py",
    ):
        for path in CHECKOUT.glob(pattern):
            copy = project.root / path.relative_to(CHECKOUT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    change_params(project.root / "params.yaml", TINY | CHANGES)
    project.run("git", "init", "--quiet")
    project.run("git", "config", "user.name", "Test")
    project.run("git", "config", "user.email", "test@localhost")
    commit = project.commit()
    output = project.selfscale("repro", "--jobs", "2")
    project.commit()
    return Repro(project, output, commit)


@pytest.fixture
def project(repro) -> Project:
    return repro.project


@pytest.fixture(scope="module")
def client(repro) -> MlflowClient:
    return open_store(repro.project.root)


def stages(output: str) -> set[str]:
    return set(re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE))


def model(project: Project, path: Path) -> keras.Model:
    return keras.saving.load_model(project.root / path, compile=False)


def named(job: Job) -> tuple[str, str, int]:
    return job.task, job.strategy, job.seed


def best(project: Project, *jobs: Job) -> Job:
    """The job whose network is registered: the smallest within a tenth of the initial validation score."""

    def rank(job: Job) -> tuple[bool, float, float]:
        result = project.json(job.output / "result.json")
        initial, final = (result["validation"][when][result["loss"]] for when in ("initial", "final"))
        within = final <= 1.1 * initial
        return not within, result["macs_per_pixel"] if within else 0.0, final

    return min(jobs, key=rank)


def test_every_stage_runs_once_and_leaves_its_outputs(repro):
    assert stages(repro.output) == {
        "inputs",
        "prepare",
        *(f"targets@{task}" for task in TASKS),
        *(f"{stage}@{task}-0" for stage in ("train", "baseline") for task in TASKS),
        *(f"minimize@{task}-sequential-0" for task in TASKS),
        *("budget", "compare", "register"),
    }
    root = repro.project.root
    assert all({path.name for path in (root / job.output).iterdir()} >= OUTPUTS for job in JOBS)
    page = (root / "reports" / "index.html").read_text(encoding="utf-8")
    assert all(f"Champion: {task}, " in page for task in TASKS)
    assert page.count("sequential, seed 0; error") == len(TASKS)
    lock = YAML(typ="safe").load(root / "dvc.lock")
    declared = {out["path"] for stage in lock["stages"].values() for out in stage.get("outs", [])}
    made = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    outputs = {path for path in made if path.parts[0] in ("models", "reports")}
    undeclared = {
        path.as_posix()
        for path in outputs
        if not {above.as_posix() for above in (path, *path.parents)} & declared
    }
    assert undeclared == {"reports/index.html", "reports/seconds.md"}  # with times, which vary
    figures = {path.name for path in outputs if path.match("reports/figures/*")}
    assert figures == {f"frontier-{task}.png" for task in TASKS}
    assert repro.project.run("git", "status", "--porcelain") == ""  # what varies is ignored


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_a_result_agrees_with_the_files(project, job):
    result = project.json(job.output / "result.json")
    assert set(result) >= KEYS
    assert (result["task"], result["strategy"], result["seed"]) == named(job)
    assert result["filters_initial"] == TINY["network.widths"]

    decisions = project.json(job.output / "decisions.json")
    trials = [decision for decision in decisions if decision["filters"]]
    accepted = [trial for trial in trials if trial["accepted"]]
    assert [decision["number"] for decision in decisions] == list(range(1, len(decisions) + 1))
    assert (result["decisions"], result["accepted"]) == (len(trials), len(accepted))
    assert result["reverted"] == len(trials) - len(accepted)
    assert result["training_steps"] == sum(decision["session"]["steps"] for decision in decisions)
    reference = result["validation"]["initial"][result["loss"]]
    for trial in trials:
        assert trial["limit"] == pytest.approx(1.1 * reference)
        assert not trial["accepted"] or trial["score"] <= trial["limit"]

    removed = np.load(project.root / job.output / "removed_filters.npy")
    gone = sorted(chosen for trial in accepted for chosen in trial["filters"])
    assert gone == np.argwhere(removed).tolist()
    for trial in trials:
        assert (trial["session"]["steps"] == 0) == (trial["alteration"] == "merge")
        if trial["alteration"] == "remove_layer":
            layers = {layer for layer, _ in trial["filters"]}
            assert not trial["accepted"] or not any(trial["filters_kept"][layer] for layer in layers)
    kept = np.array(result["filters_initial"]) - removed.sum(axis=1)
    assert kept.tolist() == result["filters_kept"] == decisions[-1]["filters_kept"]

    compact = model(project, job.output / "compact.keras")
    layers = [layer for layer in compact.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in layers] == [*filter(None, result["filters_kept"]), 1]
    assert compact.count_params() == result["parameters"]
    assert sum(layer.kernel.shape.num_elements() for layer in layers) == result["macs_per_pixel"]
    assert len((project.root / job.output / "curve.csv").read_text().splitlines()) == 1 + len(decisions)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_scores_are_those_of_the_saved_networks_on_the_test_images(project, job):
    images, target = (
        np.load(project.root / folder / "test.npy").astype("float32")
        for folder in ("data/prepared", f"data/targets/{job.task}")
    )
    scores = project.json(job.output / "result.json")["test"]
    networks = {"initial": job.training.output / "initial.keras", "final": job.output / "compact.keras"}
    for when, path in networks.items():
        output = model(project, path).predict(images / 255, verbose=0)
        if job.task == "canny":
            output, found = np.minimum(output, 1), output > 0.5
            f1 = 2 * (found * target).sum() / (found.sum() + target.sum())
            assert scores[when]["f1"] == pytest.approx(f1, abs=1e-4)
        assert scores[when]["mae"] == pytest.approx(np.abs(output - target).mean(dtype=float), rel=1e-4)


def test_the_comparison_has_every_result(project):
    results = {job.name: project.json(job.output / "result.json") for job in JOBS}
    comparison = project.json("reports/comparison.json")
    assert comparison["results"] == results
    text = (project.root / "reports" / "comparison.md").read_text()
    for job in JOBS:
        assert f"\n| {job.task} | {job.strategy} | {job.seed} | 3, 2 → " in text
    for task in TASKS:
        baseline = project.json(f"models/baseline/{task}-seed-0/result.json")
        assert comparison["baseline"][f"{task}-seed-0"] == baseline
        longest = max(result["training_steps"] for result in results.values() if result["task"] == task)
        assert baseline["steps"] == longest


def test_each_job_has_a_finished_run_of_its_execution(repro, client):
    assert {run.info.status for run in runs(client)} == {"FINISHED"}
    for kind in ("training", "baseline"):
        assert sorted(run.data.tags["task"] for run in runs(client, kind)) == sorted(TASKS)
    found = {run.data.tags["key"]: run for run in runs(client, "minimization")}
    assert len(found) == len(JOBS)
    for job in JOBS:
        run, decisions = found[noted_of(repro.project, job)["key"]], job.output / "decisions.json"
        assert run.data.tags["mlflow.source.git.commit"] == repro.commit
        assert client.get_experiment(run.info.experiment_id).name == job.task
        below = f"tags.mlflow.parentRunId = '{run.info.run_id}' and tags.kind = 'decision'"
        verdicts = {
            int(each.data.tags["decision"]): each.data.tags["verdict"] == "accepted"
            for each in client.search_runs([run.info.experiment_id], below)
        }
        assert verdicts == {each["number"]: each["accepted"] for each in repro.project.json(decisions)}


def noted_of(project: Project, job: Job) -> dict[str, Any]:
    with chdir(project.root):
        found = clock_of(job)
    assert found
    return found


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_the_compact_network_does_what_the_last_snapshot_did(project, client, job, tmp_path):
    """The snapshot that MLflow keeps of the last session that was accepted, with its filters switched off."""
    decisions = project.json(job.output / "decisions.json")
    number = max(decision["number"] for decision in decisions if decision["accepted"])
    (session,) = (
        run
        for run in runs(client, "session")
        if (run.data.tags["task"], run.data.tags["strategy"]) == (job.task, job.strategy)
        and run.data.tags["decision"] == str(number)
    )
    (artifact,) = client.list_artifacts(session.info.run_id)
    initial = model(project, job.training.output / "initial.keras")
    with np.load(client.download_artifacts(session.info.run_id, artifact.path, str(tmp_path))) as snapshot:
        weights = [snapshot[name] for name in sorted(snapshot) if name.startswith("weights_")]
        active = [snapshot[name] for name in sorted(snapshot) if name.startswith("active_")]
    *hidden, output = (layer for layer in initial.layers if isinstance(layer, keras.layers.Conv2D))
    left = [(layer, switch) for layer, switch in zip(hidden, active, strict=True) if switch.any()]
    switched = keras.Sequential(
        [initial.layers[0], *(type(layer).from_config(layer.get_config()) for layer, _ in left)]
    )
    switched.add(type(output).from_config(output.get_config()))
    switched.set_weights(weights)
    for layer, (_, switch) in zip(switched.layers, left, strict=False):
        layer.set_weights([weight * switch for weight in layer.get_weights()])
    images = np.random.default_rng(0).random((2, 31, 50, 1), dtype=np.float32)
    compact = model(project, job.output / "compact.keras")
    np.testing.assert_allclose(compact(images), switched(images), atol=1e-5)


def test_the_champions_belong_to_their_runs(project, client):
    for job in JOBS:
        task = job.task
        version = client.get_model_version_by_alias(f"selfscale-{task}", "champion")
        assert version.tags["strategy"] == job.strategy
        assert f"| strategy | `{job.strategy}`, seed 0 |" in version.description
        assert f"imitates the operator `{task}`" in version.description
        assert client.get_run(version.run_id).data.tags["key"] == noted_of(project, job)["key"]


def test_the_second_time_there_is_nothing_to_do_but_to_look_and_to_register(project, client):
    before = (project.root / "dvc.lock").read_bytes()
    versions = len(client.search_model_versions())
    assert stages(project.selfscale("repro")) == ALWAYS
    assert (project.root / "dvc.lock").read_bytes() == before
    assert len(client.search_model_versions()) == versions


def champions(project: Project) -> set[str]:
    """The hashes of the champions' files."""
    client = open_store(project.root)
    found = [client.get_model_version_by_alias(f"selfscale-{task}", "champion") for task in TASKS]
    return {measured(version).sha256 for version in found}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_fresh_clone_without_results_comes_to_the_same_champion(
    project,
    command,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    """With `dvc.lock` committed, but nothing to pull: of one task and strategy, to take half the time."""
    clone, job = project.clone(tmp_path), JOBS[0]
    change_params(clone.root / "params.yaml", {"runs.tasks": [job.task], "runs.strategies": [job.strategy]})
    clone.dvc("repro")
    for stage in ("prepare", "targets@sobel", "train@sobel-0", "minimize@sobel-sequential-0"):
        assert locked(clone, stage) == locked(project, stage)  # the same hashes
    version = open_store(clone.root).get_model_version_by_alias(f"selfscale-{job.task}", "champion")
    assert measured(version).sha256 == sha256(project.root / job.output / "compact.keras")
    photographs = tmp_path / "photographs"
    save_photographs(photographs, count=1)
    monkeypatch.chdir(clone.root)
    assert command("apply", f"{job.task}@champion", str(photographs), "--out", "edges").code == 0
    assert (clone.root / "edges" / "0.png").exists()


def locked(project: Project, stage: str) -> Any:
    """The outputs of a stage in `dvc.lock`, with their hashes."""
    return YAML(typ="safe").load(project.root / "dvc.lock")["stages"][stage]["outs"]


def test_results_travel_and_nothing_is_trained_again(project, tmp_path):
    """The commands of docs/team.md, with a remote, a colleague, and experiments of his."""
    project = project.copy(tmp_path)
    (tmp_path / "remote").mkdir()
    own = {"/srv/selfscale": tmp_path / "remote", "https://git.example.org/team/selfscale.git": project.root}
    ran: dict[str, str] = {}
    for block in blocks(CHECKOUT / "docs" / "team.md"):
        for line in block.code.splitlines():
            for shown, there in own.items():
                line = line.replace(shown, str(there))
            if line.startswith("git clone"):
                project.run("git", "clone", "--quiet", str(project.root), str(tmp_path / "colleague"))
            elif line.startswith("cd "):
                project = Project(tmp_path / "colleague")
                project.run("git", "config", "user.name", "Colleague")
                project.run("git", "config", "user.email", "colleague@localhost")
            else:
                ran[line] = project.run(*shlex.split(line))
                if line.startswith("dvc exp run --name"):
                    assert stages(ran[line]) == ALWAYS | {"compare"}
    assert stages(ran["dvc repro"]) == ALWAYS
    assert champions(project)
    assert not (project.root / ".selfscale" / "clocks").exists()  # nothing was executed that trains
    assert project.run("git", "status", "--porcelain") == ""
    assert stages(project.dvc("repro")) == ALWAYS

    more = {"runs.tasks": ["sobel"], "runs.strategies": ["sequential", "cosine"]}
    change_params(project.root / "params.yaml", more)
    longer = {"baseline@sobel-0"}  # where the new minimization took longer
    new = {"minimize@sobel-cosine-0", "budget", "compare"}
    assert stages(project.dvc("repro")) - longer == ALWAYS | new
    executed = [path.stem for path in (project.root / ".selfscale" / "clocks").glob("minimization-*.json")]
    assert executed == ["minimization-sobel-cosine-seed-0"]
    results = project.json("reports/comparison.json")["results"].values()
    assert [result["strategy"] for result in results] == ["sequential", "cosine"]
    champion = open_store(project.root).get_model_version_by_alias("selfscale-sobel", "champion")
    assert champion.tags["strategy"] == best(project, JOBS[0], Job("sobel", "cosine", 0)).strategy
    changes = json.loads(json_of(project.dvc("metrics", "diff", "--json")))
    parameters = project.json(Job("sobel", "cosine", 0).output / "result.json")["parameters"]
    assert changes["reports/metrics/sobel-cosine.json"]["parameters"] == {"old": None, "new": parameters}


def json_of(output: str) -> str:
    return next(line for line in output.splitlines() if line.startswith("{"))


def newest(project: Project, task: str) -> Any:
    versions = open_store(project.root).search_model_versions(f"name = 'selfscale-{task}'")
    return max(versions, key=lambda version: int(version.version))


def test_dvc_shows_the_metrics_of_the_results(project):
    (shown,) = json.loads(json_of(project.dvc("metrics", "show", "--json"))).values()
    for job in JOBS:  # with one seed
        found = shown["data"][f"reports/metrics/{job.task}-{job.strategy}.json"]["data"]
        result = project.json(job.output / "result.json")
        assert found["test"] == pytest.approx(result["test"]["final"][result["loss"]], rel=1e-3)
        assert (found["macs"], found["parameters"]) == (result["macs_per_pixel"], result["parameters"])


def test_a_pick_is_registered_and_does_not_outlive_an_experiment_with_other_photographs(project, tmp_path):
    project = project.copy(tmp_path)
    with chdir(project.root):
        pick(load(Path("params.yaml")), "sobel", max_macs=100_000)
    assert stages(project.dvc("repro")) == ALWAYS
    picked = project.json("picks.json")["sobel"]
    assert f"| strategy | `{picked['strategy']}`, seed 0 |" in newest(project, "sobel").description
    save_photographs(tmp_path / "photos", side=100)
    settings = {
        "data.source": "folder",
        "data.folder.path": tmp_path / "photos",
        "runs.tasks": "[sobel]",
        "runs.strategies": f"[{picked['strategy']}]",
        "training.first.steps": 20,
        "minimization.limits.decisions": 1,
    }
    words = [word for key, value in settings.items() for word in ("--set-param", f"{key}={value}")]
    output = project.dvc("exp", "run", *words)
    assert stages(output) == {
        "inputs",
        "prepare",
        "targets@sobel",
        "train@sobel-0",
        f"minimize@sobel-{picked['strategy']}-0",
        "budget",
        "baseline@sobel-0",
        "compare",
        "register",
    }
    assert "the network that was picked for sobel is there no more" in output
    assert project.json("data/prepared/manifest.json")["source"] == "folder"
    changes = json.loads(json_of(project.dvc("metrics", "diff", "--json")))
    assert changes[f"reports/metrics/sobel-{picked['strategy']}.json"]["test"]["diff"] != 0


def test_what_was_registered_comes_back_when_the_store_was_deleted(project, tmp_path):
    project = project.copy(tmp_path)
    shutil.rmtree(project.root / "mlruns")
    with chdir(project.root):
        settings = load(Path("params.yaml"))
        assert [register(settings, task)[1:4] for task in TASKS] == [(1, 1, None)] * 2
    client = open_store(project.root)
    for task in TASKS:
        version = client.get_model_version_by_alias(f"selfscale-{task}", "champion")
        network = Job(task, "sequential", 0).output / "compact.keras"
        assert measured(version).sha256 == sha256(project.root / network)
        assert client.get_run(version.run_id).data.tags["kind"] == "minimization"
