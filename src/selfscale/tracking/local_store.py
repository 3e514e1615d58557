"""The project's own MLflow store: one SQLite file with the artifacts beside it, wherever the project is."""

from __future__ import annotations

import atexit
import logging
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from sqlalchemy.engine import URL, make_url

DATABASE, ARTIFACTS = "mlruns/mlflow.db", "mlruns/artifacts"
# Every place where MLflow keeps an absolute artifact location.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)


log = logging.getLogger(__name__)


def local_store(root: Path) -> str:
    """Create the store of `root`, or follow it to where it is now; returns its URI."""
    database = root / DATABASE
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
    try:
        MlflowClient(sqlite_uri(new)).search_experiments(max_results=1)
        with closing(sqlite3.connect(new)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        new.replace(database)
    finally:
        new.unlink(missing_ok=True)


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


def read_only(root: Path) -> str:
    """Copy the database of a project that cannot be written, since SQLite writes even to read; its URI."""
    database = root / DATABASE
    copy = Path(tempfile.mkdtemp(), database.name)
    atexit.register(shutil.rmtree, copy.parent, ignore_errors=True)
    for file in database.parent.glob(f"{database.name}*"):  # some of it may be in the write-ahead log alone
        shutil.copyfile(file, copy.with_name(file.name))
    with closing(sqlite3.connect(copy)) as connection, connection:
        rebase(connection, (root / ARTIFACTS).as_uri())
    return sqlite_uri(copy)
