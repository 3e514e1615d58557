"""Files that are written whole or not at all, and that have the same bytes for the same content."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfscale.errors import UserError

if TYPE_CHECKING:
    import keras
    import numpy as np

EPOCH = (1980, 1, 1, 0, 0, 0)


def write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_bytes(path: Path, stage: str) -> bytes:
    """Read what an earlier stage wrote; raises UserError naming the stage to run if it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing; run `selfscale {stage}` first") from error


def read_json(path: Path, stage: str) -> Any:
    """The same; raises UserError also if it is no JSON."""
    content = read_bytes(path, stage)
    try:
        return json.loads(content)
    except ValueError as error:
        raise UserError(f"{path}: is damaged; run `selfscale {stage}` again") from error


def read_csv(path: Path, stage: str) -> list[dict[str, str]]:
    """The lines of a table by its header; raises UserError naming the stage to run if it is not there."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing; run `selfscale {stage}` first") from error


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(path, text.getvalue())


def write_array(path: Path, array: np.ndarray) -> None:
    import numpy as np

    content = io.BytesIO()
    np.save(content, array)
    write_bytes(path, content.getvalue())


def save_model(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file whose bytes depend on the model only.

    Keras stamps the time into the archive, and names objects that layers share by their addresses:
    the archive is written again without these, so that the same model always has the same hash.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    written, temporary = path.with_name(f".written-{path.name}"), path.with_name(f".{path.name}.tmp")
    model.save(written)
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(temporary, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                metadata = json.loads(content)
                content = json.dumps({"keras_version": metadata["keras_version"]}).encode()
            if name == "config.json":
                content = renumbered(content)
            target.writestr(zipfile.ZipInfo(name, EPOCH), content)
    written.unlink()
    temporary.replace(path)


def renumbered(config: bytes) -> bytes:
    """A Keras configuration whose shared objects are numbered in their order."""
    numbers: dict[bytes, int] = {}

    def number(found: re.Match[bytes]) -> bytes:
        return found[1] + str(numbers.setdefault(found[2], len(numbers))).encode()

    return re.sub(rb'("shared_object_id": )(\d+)', number, config)


def load_model(path: Path, stage: str) -> keras.Model:
    """Load a `.keras` file; raises UserError naming the stage to run if it is missing or damaged."""
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        state = "is damaged" if path.exists() else "is missing"
        raise UserError(f"{path}: {state}; run `selfscale {stage}` first") from error


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content(path: Path, pattern: str = "**/*") -> str:
    """A hash of a file, or of the names and contents of a folder's files; empty if it is not there."""
    if path.is_file():
        return sha256(path)
    files = [file for file in sorted(path.glob(pattern)) if file.is_file()]
    found = {file.relative_to(path).as_posix(): sha256(file) for file in files}
    return hashlib.sha256(json.dumps(found).encode()).hexdigest() if found else ""


@cache
def code() -> str:
    """A hash of this package's modules: another version may come to other results."""
    return content(Path(__file__).parent, "**/*.py")
