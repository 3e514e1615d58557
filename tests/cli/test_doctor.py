"""What `selfscale doctor` finds in whole, empty and broken projects, and what it says to do."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from selfscale import __version__
from selfscale.cli import app as cli
from selfscale.cli import doctor, loading
from selfscale.cli.doctor import Finding
from selfscale.config import Execution
from selfscale.errors import UserError
from selfscale.nn import devices
from selfscale.paths import PREPARED, TARGETS
from selfscale.tracking.store import open_existing, open_store
from selfscale.tracking.sync import sync_project
from stores import runs
from workspaces import (
    CHECKOUT,
    JOB,
    change_params,
    contents,
    minimized_project,
    own_store,
    trained_project,
)

STALE = {
    **{"strategy": "random", "seed": 0, "decision": 99, "filters_kept": [1, 1], "parameters": 9},
    **{"macs_per_pixel": 9.0, "validation": 0.1, "test": 0.1, "test_interval": {"low": 0.1, "high": 0.1}},
}


@pytest.fixture(autouse=True)
def no_server(monkeypatch) -> Iterator[None]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "visible_gpus", list)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with own_store():
        yield


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """Prepared, with targets and a trained network of the one task that it runs."""
    folder = shutil.copytree(trained_project(), tmp_path / "project")
    change_params(folder / "params.yaml", {"runs.tasks": ["sobel"]})
    monkeypatch.chdir(folder)
    return folder


def examine() -> list[Finding]:
    return doctor.examine(lambda: loading.load(Path("params.yaml")))


def problems() -> list[str]:
    return [finding.text for finding in examine() if finding.problem]


def test_nothing_is_wrong(project):
    before = contents(project / "data") | contents(project / "models")
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert result.exit_code == 0, result.output
    assert result.output.endswith("nothing is wrong\n")
    for part in (
        f"selfscale {__version__}, python 3.",
        "tensorflow 2.",
        "no GPU: the CPU is used",
        " cores, ",
        " of 1 thread each, for 2 minimizations",
        "mlruns: opens, 2 experiments",
        "data/prepared: folder, images: train 5, validation 3, test 2",
        "data/targets/sobel: targets of sobel",
        "1 of 1 trained\n",
        "0 of 2 minimized; `dvc repro` makes the others",
    ):
        assert part in result.output
    assert contents(project / "data") | contents(project / "models") == before


def test_an_empty_folder_stays_empty(empty):
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert result.exit_code == 1
    assert "! settings  params.yaml: there is no such file; run this in the project's folder" in result.output
    assert "! data      data/prepared/manifest.json: is missing; run `selfscale prepare`" in result.output
    assert "mlflow.db: not there yet; the first training makes it" in result.output
    assert result.output.endswith("2 problems, marked with !\n")
    assert list(empty.iterdir()) == []


def test_settings_without_data(empty):
    shutil.copy(CHECKOUT / "params.yaml", empty)
    missing = ["prepared", "targets/sobel", "targets/canny"]
    found = problems()
    assert [text.partition("/manifest")[0] for text in found] == [f"data/{name}" for name in missing]
    assert "run `selfscale targets canny` first" in found[-1]


def test_broken_settings_hide_nothing_else(project):
    (project / "params.yaml").write_text("network: [")
    findings = examine()
    (problem,) = [finding for finding in findings if finding.problem]
    assert problem.subject == "settings"
    assert problem.text.startswith("params.yaml: is not valid YAML")
    assert {"store", "data", "devices", "machine"} <= {finding.subject for finding in findings}


def test_a_server_that_does_not_answer(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    (problem,) = problems()
    assert problem == (
        "MLFLOW_TRACKING_URI=http://127.0.0.1:9: no server answers; start it, or unset MLFLOW_TRACKING_URI"
    )


def test_a_store_that_does_not_open(project):
    for path in (project / "mlruns").glob("mlflow.db*"):
        path.write_bytes(b"no database" * 100)
    (problem,) = problems()
    assert "mlflow.db: MLflow cannot open this store: " in problem
    assert problem.endswith("mlflow.db away to start with an empty store")


@pytest.mark.parametrize(
    ("damaged", "part"),
    [
        (PREPARED / "manifest.json", "manifest.json: is damaged; run `selfscale prepare` again"),
        (PREPARED / "test.npy", "test.npy: not a whole array; delete it and make it again"),
        (
            TARGETS / "sobel" / "manifest.json",
            "is damaged; run `selfscale targets sobel` again",
        ),
        (Path("models/trained/sobel-seed-0/training.json"), "run `selfscale train sobel --seed 0` again"),
    ],
    ids=str,
)
def test_damaged_files(project, damaged, part):
    content = (project / damaged).read_bytes()
    (project / damaged).write_bytes(content[: len(content) // 2])
    assert any(part in problem for problem in problems())


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("data.size", 64, "data/prepared: made with another data.size; run `selfscale prepare`"),
        (
            "tasks.sobel.arguments",
            {"combine": "geometric_mean"},
            "data/targets/sobel: made with another operator or arguments; run `selfscale targets sobel`",
        ),
        ("execution.mixed_precision", True, devices.NO_GPU),
    ],
)
def test_settings_that_do_not_fit_what_is_there(project, key, value, part):
    change_params(project / "params.yaml", {key: value})
    assert problems() == [part]


def test_targets_of_other_images(project):
    path = project / PREPARED / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "other"}))
    (problem,) = problems()
    assert "made from other images than data/prepared holds; run `selfscale targets sobel` again" in problem


def test_a_gpu_that_tensorflow_does_not_see(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    (finding,) = doctor.devices(Execution())
    assert finding.problem
    assert "pip install 'selfscale[gpu]'" in finding.text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    (finding,) = doctor.devices(Execution())
    assert finding.problem
    assert finding.text.startswith("CUDA_VISIBLE_DEVICES=0: TensorFlow sees no GPU")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # not to be used
    assert list(doctor.devices(Execution())) == [Finding("devices", "no GPU: the CPU is used")]


def test_more_workers_than_cores(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    *_, finding = doctor.machine(Execution(workers=3, threads=2), minimizations=9, trials=1)
    assert finding.problem
    assert "3 workers of 2 threads each are more than 2 cores; lower execution.workers" in finding.text
    assert not any(found.problem for found in doctor.machine(Execution(), minimizations=9, trials=1))


def test_packages_that_are_missing(monkeypatch):
    def version(name: str) -> str:
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    assert [finding.problem for finding in doctor.versions()].count(True) == len(doctor.PACKAGES)
    assert doctor.collect("versions", lambda: doctor.engine(Execution())) == []
    (finding,) = doctor.collect("versions", lambda: doctor.engine(Execution(engine="ray")))
    assert finding.problem
    assert "execution.engine: ray is not installed; pip install 'selfscale[ray]'" in finding.text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserError("key: wrong; do"), "key: wrong; do"),
        (ImportError("no module x"), "no module x; install selfscale again"),
        (PermissionError(13, "Permission denied", "some/file"), "some/file: Permission denied; make it read"),
    ],
)
def test_an_error_ends_a_check_and_keeps_what_it_found(error, text):
    def check() -> Iterator[Finding]:
        yield Finding("some", "thing")
        raise error

    first, last = doctor.collect("some", check)
    assert first == Finding("some", "thing")
    assert last.problem
    assert last.text.startswith(text)


def test_an_empty_registry_though_there_are_results(project, monkeypatch):
    shutil.copytree(minimized_project() / "models", project / "models", dirs_exist_ok=True)
    change_params(project / "params.yaml", {"runs.strategies": ["random"]})
    assert problems() == [
        "selfscale-sobel: is not registered, though sobel is minimized; run `selfscale register`"
    ]


@pytest.mark.parametrize("name", ["compact.keras", "kept/{number:03}.keras", "decisions.json"])
def test_files_of_results_that_are_gone_or_empty(project, name):
    shutil.copytree(minimized_project() / "models", project / "models", dirs_exist_ok=True)
    change_params(project / "params.yaml", {"runs.strategies": ["random"]})
    result = json.loads((JOB.output / "result.json").read_text())
    path = JOB.output / name.format(number=result["kept"][0]["decision"])
    if path.suffix == ".json":
        path.write_bytes(b"")
    else:
        path.unlink()
    problem, registry = problems()
    state = "empty" if path.suffix == ".json" else "gone"
    assert problem == (
        f"{path}: is {state}; `dvc checkout` brings it back, or `selfscale {JOB.command}` makes it again"
    )
    assert "is not registered" in registry


def test_a_pick_of_a_network_that_is_there_no_more(project):
    point = STALE | {"path": "models/minimized/sobel-random-seed-0/kept/099.keras"}
    Path("picks.json").write_text(json.dumps({"sobel": point, "edges": point}))
    shutil.copytree(minimized_project() / "models", project / "models", dirs_exist_ok=True)
    stale, unknown = [text for text in problems() if text.startswith("picks.json")]
    assert "the network that was picked for sobel is there no more; run `selfscale pick sobel`" in stale
    assert unknown == "picks.json: edges is no task of the settings; take it out of the file"


def test_artifacts_that_are_gone_come_back_as_it_says(project):
    shutil.rmtree(project / "mlruns" / "artifacts")
    (problem,) = problems()
    remedy = "delete these runs in `selfscale ui`, and `selfscale sync` shows them again"
    assert problem.endswith(f"the files of 1 run are gone; {remedy}")
    client = open_store(project)
    (run,) = runs(client, "training")
    client.delete_run(run.info.run_id)
    assert sync_project(project) == 1
    assert problems() == []


def test_a_version_whose_files_are_gone(project):
    client = open_store(project)
    client.create_registered_model("selfscale-sobel")
    version = client.create_model_version("selfscale-sobel", (project / "none").as_uri())
    client.set_registered_model_alias("selfscale-sobel", "champion", version.version)
    assert problems() == ["selfscale-sobel version 1: its files are gone; run `selfscale register` again"]


@pytest.mark.parametrize(
    ("revision", "part"),
    [("451aebb31d03", "made by an older MLflow than "), ("0123456789ab", "made by a newer MLflow than ")],
)
def test_a_store_of_another_version_keeps_its_registry(project, tmp_path, monkeypatch, revision, part):
    open_store(project).create_registered_model("selfscale-sobel")
    moved = shutil.copytree(project, tmp_path / "moved")  # MLflow looks at each place once
    monkeypatch.chdir(moved)
    database = moved / "mlruns" / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        (current,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    problem, *_ = problems()
    assert part in problem
    assert "away" not in problem
    assert ("copy it, then run `mlflow db upgrade sqlite:///mlruns/mlflow.db`" in problem) == (
        "older" in part
    )
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (current,))
    assert open_store(moved).get_registered_model("selfscale-sobel")


def test_a_clone_without_results_says_what_to_run(project):
    shutil.rmtree(project / "models")
    shutil.rmtree(project / "mlruns")
    texts = [finding.text for finding in examine()]
    remedy = "run `dvc pull` if there is a remote, then `selfscale repro`"
    assert f"there are no results, as in a new clone: {remedy}" in texts
    with pytest.raises(UserError, match=f"there is no MLflow store, as in a new clone: {remedy}"):
        open_existing(project)


def test_settings_of_keras_that_commands_go_without(project, tmp_path):
    (tmp_path / "keras.json").write_text('{"image_data_format": "channels_first", "floatx": "float32"}')
    done = subprocess.run(
        [str(Path(sys.executable).with_name("selfscale")), "doctor"],
        env=os.environ | {"KERAS_BACKEND": "torch", "KERAS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert (
        "KERAS_BACKEND=torch, but selfscale needs tensorflow; change it for programs of yours" in done.stdout
    )
    assert "image_data_format is channels_first, but selfscale needs channels_last" in done.stdout
