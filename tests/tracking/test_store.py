from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlflow
import pytest

from selfscale.errors import UserError
from selfscale.tracking import store
from selfscale.tracking.store import StoreError, existing_run, experiment, open_store, store_errors
from stores import new_store, python


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def logged_text(client: store.Client, run_id: str) -> str:
    (file,) = client.list_artifacts(run_id)
    return Path(client.download_artifacts(run_id, file.path)).read_text()


def run_with_text(client: store.Client, text: str) -> str:
    run_id = client.create_run(experiment(client, "sobel")).info.run_id
    client.log_text(run_id, text, "note.txt")
    return run_id


def test_two_processes_may_open_a_new_store_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path; from selfscale.tracking.store import *\n"
        "print(experiment(open_store(Path(sys.argv[1])), 'sobel'))"
    )
    both = [subprocess.Popen(python(code, tmp_path), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0] == outputs[1] != ""
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert not list((tmp_path / "mlruns").glob("*.new"))


def test_a_cut_off_creation_is_started_anew(tmp_path):
    (tmp_path / "mlruns").mkdir()
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db.new")) as connection:
        connection.execute("CREATE TABLE experiments (half INTEGER)")
    assert experiment(open_store(tmp_path), "sobel")


def test_artifacts_lie_beside_the_database_whatever_the_working_directory(tmp_path, monkeypatch):
    client = new_store(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    run_with_text(client, "hello")
    assert [path.read_text() for path in (tmp_path / "here/mlruns/artifacts/sobel").rglob("*.txt")] == [
        "hello"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_opening_does_not_pass_for_the_users_wish(tmp_path):
    new_store(tmp_path / "a")
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert "MLFLOW_REGISTRY_URI" not in os.environ
    client = new_store(tmp_path / "b")
    assert client.tracking_uri == mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/b/mlruns/mlflow.db"


@pytest.mark.parametrize("name", ["elsewhere", "with spaces, 50%20 and ünïcode #?"])
def test_a_moved_store_finds_its_artifacts(tmp_path, name):
    run_id = run_with_text(new_store(tmp_path / "before"), "hello")
    (tmp_path / "before").rename(tmp_path / name)
    moved = open_store(tmp_path / name)
    assert logged_text(moved, run_id) == "hello"
    assert logged_text(moved, run_with_text(moved, "new")) == "new"
    (tmp_path / name).rename(tmp_path / "back")
    assert logged_text(open_store(tmp_path / "back"), run_id) == "hello"


def test_a_copied_store_and_its_original_go_separate_ways(tmp_path):
    run_id = run_with_text(new_store(tmp_path / "original"), "hello")
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    copy = open_store(tmp_path / "copy")
    (note,) = (tmp_path / "copy").rglob("note.txt")
    note.write_text("changed")
    assert logged_text(copy, run_id) == "changed"
    assert logged_text(open_store(tmp_path / "original"), run_id) == "hello"


def test_a_move_leaves_other_locations_alone(tmp_path):
    client = new_store(tmp_path / "before")
    client.create_experiment("mine", "s3://bucket/mlruns/artifacts/mine")
    client.create_experiment("near", (tmp_path / "before-mlruns/artifacts2/near").as_uri())
    experiment(client, "sobel")
    (tmp_path / "before").rename(tmp_path / "after")
    locations = {
        found.name: found.artifact_location for found in open_store(tmp_path / "after").search_experiments()
    }
    assert locations["mine"] == "s3://bucket/mlruns/artifacts/mine"
    assert locations["near"] == (tmp_path / "before-mlruns/artifacts2/near").as_uri()
    assert locations["sobel"] == (tmp_path / "after/mlruns/artifacts/sobel").as_uri()


def test_the_variable_names_another_store(tmp_path, monkeypatch):
    other = new_store(tmp_path / "other")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other.tracking_uri)
    client = open_store(tmp_path / "root")
    assert client.tracking_uri == other.tracking_uri
    run_with_text(client, "hello")
    assert list((tmp_path / "other/mlruns/artifacts").rglob("note.txt"))
    assert not (tmp_path / "root").exists()


def test_a_deleted_experiment_is_restored(tmp_path):
    client = new_store(tmp_path)
    found = experiment(client, "sobel")
    client.delete_experiment(found)
    assert experiment(client, "sobel") == found
    assert client.get_experiment(found).lifecycle_stage == "active"


def test_a_run_that_is_not_there(tmp_path):
    client = new_store(tmp_path)
    run_id = run_with_text(client, "hello")
    assert existing_run(client, run_id)
    client.delete_run(run_id)
    assert existing_run(client, run_id) is None
    assert existing_run(client, "0" * 32) is None
    assert existing_run(client, None) is None


@contextmanager
def listening(answers: bool) -> Iterator[str]:
    """A server that says 404 to everything, or that takes a connection and never answers."""

    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *arguments: object) -> None:
            pass

    if answers:
        with HTTPServer(("127.0.0.1", 0), NotFound) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"127.0.0.1:{server.server_port}"
            server.shutdown()
    else:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            yield f"127.0.0.1:{silent.getsockname()[1]}"


@pytest.mark.parametrize(("answers", "words"), [(True, "answers 404"), (False, "no server answers")])
def test_no_mlflow_server_at_the_address_is_one_line(tmp_path, monkeypatch, answers, words):
    monkeypatch.setattr(store, "ANSWER_SECONDS", 0.3)
    with listening(answers) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@{address}")
        with pytest.raises(UserError, match=rf"^MLFLOW_TRACKING_URI=http://{address}: {words}") as caught:
            open_store(tmp_path)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_port_that_nobody_listens_on(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI.*no server answers"):
        open_store(tmp_path)


@pytest.mark.parametrize("uri", ["nonsense://store", "some/folder"])
def test_a_uri_that_mlflow_does_not_take(tmp_path, monkeypatch, uri):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match=f"^MLFLOW_TRACKING_URI={uri}: MLflow cannot open") as caught:
        open_store(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_database_is_one_line(tmp_path):
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_text(
        "no database at all, but long enough to be looked at" * 100
    )
    with pytest.raises(
        UserError, match=r"mlruns/mlflow\.db: MLflow cannot open this store: .*not a database"
    ):
        open_store(tmp_path)


def test_a_store_that_fails_in_use_is_one_line(tmp_path):
    client = new_store(tmp_path)
    run_id = run_with_text(client, "hello")
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as connection:
        connection.execute("DROP TABLE params")
    with pytest.raises(StoreError, match="no such table") as caught, store_errors():
        client.log_param(run_id, "a", 1)
    assert "\n" not in str(caught.value)
