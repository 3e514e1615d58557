"""The MLflow store: opened in one place, safe for several processes, and still right after a move.

Tracking and registry are one SQLite file, `mlruns/mlflow.db`, with the artifacts beside it;
`MLFLOW_TRACKING_URI` names another store instead.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import requests
from filelock import FileLock
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # two lines for each run that ends

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from selfscale.errors import UserError

VARIABLE = "MLFLOW_TRACKING_URI"
ARTIFACTS = "mlruns/artifacts"
ANSWER_SECONDS = 5.0
# Every place where MLflow keeps an absolute artifact location.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)

# What modules that take a client need of MLflow.
Client: TypeAlias = MlflowClient

log = logging.getLogger(__name__)
logging.getLogger("mlflow").setLevel(logging.WARNING)
# It logs a traceback with every error that it raises; `store_errors` reports these in one line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


class StoreError(UserError):
    """The store failed while it was used: its disk is full, or its server went away."""


def open_store(root: Path = Path()) -> Client:
    """A client of the project's tracking store and registry, which also become MLflow's defaults.

    The store of the folder `root` is created if it is not there, and follows `root` if that was
    moved or copied. If MLFLOW_TRACKING_URI is set, that store is opened instead.

    Raises:
        UserError: the store cannot be opened, or the server does not answer within seconds.
    """
    chosen = os.environ.get(VARIABLE)
    where = f"{VARIABLE}={without_password(chosen)}" if chosen else str(root / "mlruns/mlflow.db")
    try:
        if chosen and is_remote(chosen):
            check_server(chosen)
        uri = chosen or local_store(root.resolve())
        with environment_kept(VARIABLE, "MLFLOW_REGISTRY_URI"):
            mlflow.set_tracking_uri(uri)
            mlflow.set_registry_uri(uri)
        client = MlflowClient(uri, uri)
        client.search_experiments(max_results=1)
    except (MlflowException, sqlite3.Error) as error:
        raise UserError(f"{where}: MLflow cannot open this store: {first_line(error)}") from error
    return client


def open_existing(root: Path = Path()) -> Client:
    """The same, but without creating one, for what only reads.

    Raises:
        UserError: there is no store, or it cannot be opened.
    """
    database = root / "mlruns/mlflow.db"
    if not os.environ.get(VARIABLE) and not database.exists():
        raise UserError(
            f"{database}: there is no MLflow store; run this in the project's folder, or set {VARIABLE}"
        )
    return open_store(root)


@contextmanager
def environment_kept(*names: str) -> Iterator[None]:
    """MLflow writes what it is told into the environment, where it would pass for the user's wish."""
    before = {name: os.environ.get(name) for name in names}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn a full disk, a locked database or a server that went away into a StoreError."""
    try:
        yield
    except MlflowException as error:
        if not isinstance(error.__context__, (OperationalError, requests.RequestException)):
            raise
        raise StoreError(f"{VARIABLE} or mlruns: the MLflow store fails: {first_line(error)}") from error


# How MLflow fails: for reasons that the user can put right, or for others.
FAILURES = (UserError, MlflowException)


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def is_remote(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")


def without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def check_server(uri: str) -> None:
    """Raise UserError unless an MLflow server answers; MLflow itself would try for minutes."""
    where = f"{VARIABLE}={without_password(uri)}"
    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS)
    except requests.RequestException as error:
        raise UserError(f"{where}: no server answers; start it, or unset {VARIABLE}") from error
    if answer.status_code not in (200, 401, 403):
        raise UserError(f"{where}: answers {answer.status_code} to /health, so it is no MLflow server")


def local_store(root: Path) -> str:
    """Create the store of `root`, or follow it to where it is now; returns its URI."""
    database = root / "mlruns" / "mlflow.db"
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name("mlflow.lock")):
        if not database.exists():
            create(database)
        with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
            rebase(connection, (root / ARTIFACTS).as_uri())
    return sqlite_uri(database)


def create(database: Path) -> None:
    """Make MLflow's tables; under a temporary name, since half of them could not be completed.

    WAL lets the UI read while runs are written and halves the time of a write; the file keeps the
    setting.
    """
    new = database.with_name("mlflow.db.new")
    new.unlink(missing_ok=True)
    MlflowClient(sqlite_uri(new)).search_experiments(max_results=1)
    with closing(sqlite3.connect(new)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    new.replace(database)


def rebase(connection: sqlite3.Connection, artifacts: str) -> None:
    """Point the locations below any former root's `mlruns/artifacts` to the URI `artifacts`."""
    locations = connection.execute("SELECT artifact_location FROM experiments").fetchall()
    folders = {location.rpartition("/")[0] for (location,) in locations}
    for former in folders - {artifacts}:
        if not (former.startswith("file:") and former.endswith(f"/{ARTIFACTS}")):
            continue
        for table, column in LOCATIONS:
            connection.execute(
                f"UPDATE {table} SET {column} = :now || substr({column}, length(:former) + 1) "
                f"WHERE substr({column}, 1, length(:former) + 1) = :former || '/'",
                {"now": artifacts, "former": former},
            )
        log.info("mlruns was moved: its artifacts are now at %s", artifacts)


def sqlite_uri(database: Path) -> str:
    """The URI that SQLAlchemy reads as this path, encoded only where it must be.

    Encoded in vain, MLflow would leave an empty folder of the encoded name.
    """
    plain = f"sqlite:///{database}"
    if make_url(plain).database == str(database):
        return plain
    return URL.create("sqlite", database=str(database)).render_as_string()


def store_folder(client: Client) -> Path | None:
    """The folder of a local store's database; None if the store is elsewhere."""
    if not client.tracking_uri.startswith("sqlite:"):
        return None
    return Path(make_url(client.tracking_uri).database or "").resolve().parent


def experiment(client: Client, task: str) -> str:
    """The id of the task's experiment, created or restored as needed."""
    found = client.get_experiment_by_name(task)
    if found is None:
        folder = store_folder(client)
        location = (folder / "artifacts" / task).as_uri() if folder else None
        try:
            return str(client.create_experiment(task, location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(task)  # another process was faster
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def existing_run(client: Client, run_id: str | None) -> Run | None:
    """The run, unless it was never there or was deleted."""
    try:
        run = client.get_run(run_id) if run_id else None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run and run.info.lifecycle_stage == "active" else None
