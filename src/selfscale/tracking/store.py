"""The MLflow store: opened in one place, safe for several processes, and still right after a move.

Tracking and registry are one SQLite file, `mlruns/mlflow.db`, with the artifacts beside it;
`MLFLOW_TRACKING_URI` names another store instead.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import requests
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # two lines for each run that ends

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.db_migrations import versions

from selfscale.errors import UserError
from selfscale.tracking.local_store import DATABASE, local_store, read_only

VARIABLE = "MLFLOW_TRACKING_URI"
# Codes of errors that are a server's: it is broken, or does not let this user in.
FAILING = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "PERMISSION_DENIED", "UNAUTHENTICATED"}
# How long a server may take to answer, and how often it is asked again; MLflow's own are minutes. The first
# question is asked once. A user's own choice stands.
PATIENCE = {
    name: (first, later)
    for name, first, later in (
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "5", "30"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0", "1"),
    )
    if name not in os.environ
}
os.environ.update({name: later for name, (_, later) in PATIENCE.items()})

# What modules that take a client need of MLflow.
Client: TypeAlias = MlflowClient

log = logging.getLogger(__name__)
logging.getLogger("mlflow").setLevel(logging.WARNING)
# It logs a traceback with every error that it raises; `store_errors` reports these in one line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it says each time that it asks again


class OtherVersion(UserError):
    """The store was made by another version of MLflow."""


class StoreError(UserError):
    """The store failed while it was used: its disk is full, or its server went away."""


def open_store(root: Path = Path()) -> Client:
    """A client of the project's tracking store and registry, which also become MLflow's defaults.

    The store of the folder `root` is created if it is not there, and follows `root` if that was
    moved or copied. If MLFLOW_TRACKING_URI is set, that store is opened instead.

    Raises:
        UserError: the store cannot be opened, or the server does not answer within seconds.
    """
    with cannot_open(root):
        return _open(os.environ.get(VARIABLE) or local_store(root.resolve()))


def open_existing(root: Path = Path()) -> Client:
    """The same, but without creating one, for what only reads.

    Of a project that is read-only, a copy of the database is opened, since SQLite writes even to read.

    Raises:
        UserError: there is no store, or it cannot be opened.
    """
    database = root / DATABASE
    if os.environ.get(VARIABLE):
        return open_store(root)
    if not database.exists() and (root / "params.yaml").exists():
        remedy = "run `dvc pull` if there is a remote, then `selfscale repro`"
        raise UserError(f"{database}: there is no MLflow store, as in a new clone: {remedy}")
    if not database.exists():
        raise UserError(
            f"{database}: there is no MLflow store; run this in the project's folder, or set {VARIABLE}"
        )
    if os.access(database.parent, os.W_OK) and os.access(database, os.W_OK):
        return open_store(root)
    with cannot_open(root):
        return _open(read_only(root.resolve()))


def _open(uri: str) -> Client:
    with environment_kept(VARIABLE, "MLFLOW_REGISTRY_URI", *PATIENCE):
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        os.environ.update({name: first for name, (first, _) in PATIENCE.items()})
        client = MlflowClient(uri, uri)
        client.search_experiments(max_results=1)
    return client


@contextmanager
def cannot_open(root: Path) -> Iterator[None]:
    """Tell in one line why a store cannot be opened, whatever MLflow, a driver or the system raises."""
    chosen = os.environ.get(VARIABLE)
    where = f"{VARIABLE}={chosen}" if chosen else str(root / DATABASE)
    try:
        yield
    except Exception as error:
        if isinstance(error.__context__, requests.RequestException) and not has_answered(error.__context__):
            raise UserError(f"{where}: no server answers; start it, or unset {VARIABLE}") from error
        plain = UserError(f"{where}: MLflow cannot open this store: {first_line(error)}")
        raise other_version(error, where) or plain from error


def has_answered(error: requests.RequestException) -> bool:
    """Whether it is a server's own error, of which MLflow has asked often enough."""
    return isinstance(error, (requests.exceptions.RetryError, requests.exceptions.SSLError))


def other_version(error: Exception, where: str) -> OtherVersion | None:
    """What to do about a database of another version of MLflow, if that is the error."""
    found = re.search(
        r"database schema \(found version (\w+)|no such (?:table: (?!experiments)|column)", str(error)
    )
    if not found:
        return None
    known = not found[1] or any(Path(*versions.__path__).glob(f"{found[1]}_*.py"))
    uri = f"${VARIABLE}" if os.environ.get(VARIABLE) else f"sqlite:///{where}"
    remedy = f"copy it, then run `mlflow db upgrade {uri}`" if known else "install the version that made it"
    age = "an older" if known else "a newer"
    return OtherVersion(f"{where}: was made by {age} MLflow than {mlflow.__version__}; {remedy}")


@contextmanager
def environment_kept(*names: str) -> Iterator[None]:
    """MLflow writes what it is told into the environment, where it would pass for the user's wish."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn a full disk, a locked database or a server that fails or went away into a StoreError."""
    try:
        yield
    except MlflowException as error:
        causes = (SQLAlchemyError, requests.RequestException, OSError)
        if not isinstance(error.__context__, causes) and error.error_code not in FAILING:
            raise
        raise StoreError(f"{VARIABLE} or mlruns: the MLflow store fails: {first_line(error)}") from error
    except OSError as error:
        raise StoreError(
            f"{error.filename or 'mlruns'}: the MLflow store fails: {first_line(error)}"
        ) from error


def first_line(error: Exception) -> str:
    """Why it failed; the system's own reason if it has one."""
    if isinstance(error, shutil.Error):  # of several files
        error = OSError(error.args[0][0][-1])
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return reason.strip().partition("\n")[0]


def is_remote(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")


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
