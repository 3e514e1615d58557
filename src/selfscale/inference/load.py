"""The networks that a command can be given: a file, a minimization's folder, a run, a registered version."""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from selfscale.errors import UserError

if TYPE_CHECKING:
    import keras

COMPACT = "compact.keras"
RUN_ID = re.compile("[0-9a-f]{32}")


@contextmanager
def find(words: str) -> Iterator[Path]:
    """The `.keras` file of the network that `words` name, as long as the block lasts.

    `words` are the path of a `.keras` file, of a minimization's folder (with `compact.keras`), the id of
    an MLflow run, or `task@alias` or `task@version` of the registry. Beside a minimization's network lie its
    other files, whichever way it was named, except by the registry.

    Raises:
        UserError: there is no such network; the message lists what there is.
        StoreError: the MLflow store fails.
    """
    path = Path(words).expanduser()
    if path.is_dir():
        if not (path / COMPACT).is_file():
            raise UserError(f"{words}: this folder has no {COMPACT}; name a minimization's, or a .keras file")
        yield path / COMPACT
    elif path.is_file():
        yield path
    elif path.suffix == ".keras" or len(path.parts) > 1:
        raise UserError(f"{words}: there is no such file or folder")
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield fetch(words, Path(folder))


def fetch(words: str, folder: Path) -> Path:
    """Download what the store has under that name into `folder`."""
    from selfscale.inference import fetching  # with MLflow, which takes seconds to import
    from selfscale.paths import store_root
    from selfscale.tracking.store import open_existing

    if "@" in words:
        task, _, version = words.rpartition("@")
        return fetching.fetch_version(open_existing(store_root()), task, version, folder)
    if RUN_ID.fullmatch(words):
        return fetching.fetch_run(open_existing(store_root()), words, folder)
    try:
        there = f"registered: {fetching.listing(open_existing(store_root()))}"
    except UserError as error:
        there = str(error)
    raise UserError(
        f"{words}: is neither a .keras file, nor a minimization's folder, nor an MLflow run's id, nor "
        f"TASK@ALIAS or TASK@VERSION; {there}"
    )


def task_of(words: str, path: Path) -> str | None:
    """The task of what `find` found: the registry's, or that in a minimization's result; None if neither."""
    if not Path(words).expanduser().exists() and "@" in words:
        return words.rpartition("@")[0]
    try:
        return str(json.loads(path.with_name("result.json").read_text(encoding="utf-8"))["task"])
    except (OSError, ValueError, KeyError, TypeError):  # a file of that name that has nothing to do with it
        return None


def load(path: Path, words: str) -> keras.Model:
    """The network of a `.keras` file that turns gray images of any size into gray images.

    `words` are what the user called it. Raises UserError if it cannot be loaded, or is another kind of model.
    """
    import keras

    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{words}: is no Keras model that can be loaded: {reason}") from error
    shapes = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    if shapes[0] != (None, None, None, 1) or shapes[1] != (None, None, None, 1):
        raise UserError(
            f"{words}: takes {shapes[0]} and gives {shapes[1]}; a network from gray images of any size to "
            "gray images, (None, None, None, 1), is needed"
        )
    return model
