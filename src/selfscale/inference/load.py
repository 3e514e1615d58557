"""Find and load a network by what a user calls it: a file, a folder, an MLflow run, a registered version."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from selfscale import model_files
from selfscale.errors import UserError
from selfscale.files import user_path

if TYPE_CHECKING:
    import keras

COMPACT = "compact.keras"
GRAY, COLOUR = (1,), (1, 3)  # channels of images
RUN_ID = re.compile("[0-9a-f]{32}")
ADDRESS = "models:/"  # as MLflow begins the name of a registered version


@contextmanager
def find(reference: str) -> Iterator[Path]:
    """Provide the `.keras` file of a network, as long as the block lasts.

    Beside a minimization's network lie its other files, unless the registry named it.

    Args:
        reference: The path of a `.keras` file or of a minimization's folder, the id of an MLflow run, or
            `task@alias` or `task@version` of the registry, also as it writes them itself
            (`selfscale-task@alias`, `models:/selfscale-task/version`).

    Raises:
        UserError: There is no such network; the message lists what there is.
        StoreError: The MLflow store fails.
    """
    path = user_path(reference, "the network")
    if path.is_dir():
        if not (path / COMPACT).is_file():
            raise UserError(
                f"{reference}: this folder has no {COMPACT}; name a minimization's, or a .keras file"
            )
        yield path / COMPACT
    elif path.is_file():
        yield path
    elif not reference.startswith(ADDRESS) and (path.suffix == ".keras" or len(path.parts) > 1):
        raise UserError(f"{reference}: there is no such file or folder")
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield _download(reference, Path(folder))


def _download(reference: str, folder: Path) -> Path:
    from selfscale.inference import download  # with MLflow, which takes seconds to import
    from selfscale.paths import store_root
    from selfscale.tracking.store import open_existing

    if version := _version_of(reference):
        return download.download_version(open_existing(store_root()), *version, folder)
    if RUN_ID.fullmatch(reference):
        return download.download_run(open_existing(store_root()), reference, folder)
    try:
        there = f"registered: {download.listing(open_existing(store_root()))}"
    except UserError as error:
        there = str(error)
    raise UserError(
        f"{reference}: is neither a .keras file, nor a minimization's folder, nor an MLflow run's id, nor "
        f"TASK@ALIAS or TASK@VERSION; {there}"
    )


def _version_of(reference: str) -> tuple[str, str] | None:
    """Return task and version, or alias, if the reference names a registered version."""
    name = reference.removeprefix(ADDRESS)
    task, found, version = name.rpartition("@" if "@" in name or name == reference else "/")
    return (task.removeprefix("selfscale-"), version) if found else None


def task_of(reference: str, path: Path) -> str | None:
    """Return the task of the network that `find` found: the registry's, or that of `result.json`, or None."""
    if not user_path(reference, "the network").exists() and (version := _version_of(reference)):
        return version[0]
    try:
        return str(json.loads(path.with_name("result.json").read_text(encoding="utf-8"))["task"])
    except (OSError, ValueError, KeyError, TypeError):  # a file of that name that has nothing to do with it
        return None


def read(path: Path, reference: str) -> keras.Model:
    """Load a network of any kind.

    Args:
        path: The `.keras` file.
        reference: What the user called it, for error messages.

    Raises:
        UserError: It cannot be loaded.
    """
    try:
        return model_files.read(path)
    except ValueError as error:
        raise UserError(f"{reference}: is no Keras model that can be loaded: {error}") from error


def takes_images(model: keras.Model, channels: Collection[int] = GRAY) -> bool:
    """Return whether a network turns images of any size into images, both of so many channels."""
    images = [(None, None, None, count) for count in channels]
    return all(getattr(model, name, None) in images for name in ("input_shape", "output_shape"))


def load(path: Path, reference: str, channels: Collection[int] = GRAY) -> keras.Model:
    """Load a network that turns images of any size into images; arguments as for the two functions above.

    Raises:
        UserError: It cannot be loaded, or is another kind of model.
    """
    model = read(path, reference)
    if not takes_images(model, channels):
        kind = "gray images" if channels == GRAY else "gray or colour images"
        shapes = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
        raise UserError(
            f"{reference}: takes {shapes[0]} and gives {shapes[1]}; a network from {kind} of any size "
            f"to {kind}, (None, None, None, {' or '.join(map(str, channels))}), is needed"
        )
    return model
