from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from selfscale.errors import UserError
from selfscale.tracking import store
from selfscale.tracking.store import (
    StoreError,
    existing_run,
    experiment,
    open_existing,
    open_store,
    store_errors,
)
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


def handler(status: int, body: bytes) -> type[BaseHTTPRequestHandler]:
    """Healthy by `/health`, and for everything else this."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            healthy = self.path == "/health"
            self.send_response(200 if healthy else status)
            self.end_headers()
            self.wfile.write(b"OK" if healthy else body)

        do_POST = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    return Answers


@contextmanager
def server(status: int = 500, body: bytes = b"broken", tls: Path | None = None) -> Iterator[str]:
    """A server that is no good to MLflow; with status 0 it takes connections and never answers."""
    if not status:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            yield f"127.0.0.1:{silent.getsockname()[1]}"
        return
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(status, body)) as serving:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            serving.socket = context.wrap_socket(serving.socket, server_side=True)
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{serving.server_port}"
        serving.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b"<html>\nno", "failed with error code 404"),
        (500, b"broken", "too many 500 error responses"),
        (200, b"<html>\nnot JSON", "not in a valid JSON format"),
        (403, b"no", "failed with error code 403"),
        (0, b"", "no server answers; start it, or unset"),
    ],
)
def test_a_server_that_is_no_good_is_one_line_within_seconds(tmp_path, monkeypatch, status, body, words):
    monkeypatch.setitem(store.PATIENCE, "MLFLOW_HTTP_REQUEST_TIMEOUT", ("1", "30"))
    started = time.monotonic()
    with server(status, body) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@{address}")
        with pytest.raises(UserError, match=rf"^MLFLOW_TRACKING_URI=http://{address}: ") as caught:
            open_store(tmp_path)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 5


def test_a_private_certificate_is_trusted_as_mlflow_is_told(tmp_path, monkeypatch):
    pem = tmp_path / "server.pem"
    words = f"req -x509 -newkey rsa:2048 -nodes -keyout {pem}.key -out {pem}.crt -subj /CN=localhost"
    words += " -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:TRUE"
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
    pem.write_text(Path(f"{pem}.key").read_text() + Path(f"{pem}.crt").read_text())
    with server(200, b'{"experiments": []}', tls=pem) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://{address}")
        with pytest.raises(UserError, match=r"CERTIFICATE_VERIFY_FAILED"):
            open_store(tmp_path)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", f"{pem}.crt")
        assert open_store(tmp_path).tracking_uri == f"https://{address}"


def test_a_port_that_nobody_listens_on(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI.*no server answers"):
        open_store(tmp_path)


def test_a_server_that_fails_in_use_is_one_line(tmp_path, monkeypatch):
    with server(200, b'{"experiments": []}') as good:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{good}")
        client = open_store(tmp_path)
    with pytest.raises(StoreError, match="the MLflow store fails: API request"), store_errors():
        client.get_run("0" * 32)


@pytest.mark.parametrize(
    "uri",
    [
        *("nonsense://store", "some/folder", "postgresql+nodriver://me:secret@host/db"),
        *("sqlite:////proc/none/mlflow.db", "file:///proc/none", "mssql://me:secret@host/db"),
    ],
)
def test_a_uri_that_mlflow_does_not_take(tmp_path, monkeypatch, uri):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    shown = re.escape(uri.replace("me:secret@", ""))
    with pytest.raises(UserError, match=f"^MLFLOW_TRACKING_URI={shown}: MLflow cannot open") as caught:
        open_store(tmp_path)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_read_only_project_can_be_read_and_is_left_alone(tmp_path, monkeypatch):
    root = tmp_path / "before"
    run_id = run_with_text(new_store(root), "hello")
    root = root.rename(tmp_path / "after")
    real = os.access  # a disk that is mounted read-only
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    client = open_existing(root)
    assert logged_text(client, run_id) == "hello"
    assert sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*")) == before


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "artifact"),
        shutil.Error([("a", "b", "[Errno 28] No space left on device")]),
        MlflowException("(sqlite3.OperationalError) database or disk is full\nmore"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_is_one_line(tmp_path, monkeypatch, error):
    def full(*arguments: object, **named: object) -> None:
        raise error

    client = new_store(tmp_path)
    run_id = client.create_run(experiment(client, "sobel")).info.run_id
    monkeypatch.setattr(store.MlflowClient, "log_artifact", full)
    message = r"the MLflow store fails: .*(full|No space)"
    with pytest.raises(StoreError, match=message) as caught, store_errors():
        client.log_artifact(run_id, "note.txt")
    assert "\n" not in str(caught.value)


def test_a_store_that_cannot_be_created_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments: object, **named: object) -> None:
        (tmp_path / "mlruns/mlflow.db.new").write_text("half")
        raise OperationalError("CREATE TABLE", {}, sqlite3.OperationalError("database or disk is full"))

    monkeypatch.setattr(store.MlflowClient, "search_experiments", full)
    with pytest.raises(UserError, match=r"mlruns/mlflow\.db: MLflow cannot open this store: .*disk is full"):
        open_store(tmp_path)
    assert [path.name for path in (tmp_path / "mlruns").iterdir() if "lock" not in path.name] == []


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
