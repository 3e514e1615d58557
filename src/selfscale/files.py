"""Files and folders that are written whole or not at all; the same content has the same bytes."""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from selfscale.errors import UserError

if TYPE_CHECKING:
    import keras
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

EPOCH = (1980, 1, 1, 0, 0, 0)
# What the user can put right; any other error of the system is shown as it is.
OF_THE_DISK = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR}
)


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


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write in, which takes the place of `out` when the block ends without an exception.

    It is `.NAME.partial` beside `out`; one left by a killed process is deleted. Raises UserError if
    the disk is full or not writable, or if another process is writing the same folder.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file is in the place of this folder; move it away")
    partial, former = (out.with_name(f".{out.name}.{suffix}") for suffix in ("partial", "former"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _lock(out):
            _delete(partial, former)
            partial.mkdir()
            try:
                yield partial
                if out.exists():
                    out.replace(former)
                partial.replace(out)
            finally:
                _delete(partial, former)
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        raise UserError(f"{out}: cannot be written: {os.strerror(error.errno)}; nothing was kept") from error


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Hold a lock file beside `out`, which is deleted in the end while it is still held."""
    path, held = out.with_name(f".{out.name}.lock"), False
    with ExitStack() as stack:
        while not held:
            file = stack.enter_context(path.open("a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                message = f"{out}: another process is writing it; wait until it has ended"
                raise UserError(message) from error
            held = os.fstat(file.fileno()).st_nlink > 0  # else who held it has deleted it just now
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _delete(*folders: Path) -> None:
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)


@contextmanager
def new_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """An .npy file of that dtype and shape, to be filled by writing its rows' bytes in order.

    Written, not mapped: a full disk is an error here, but would kill a process that has it mapped.
    """
    import numpy as np
    from numpy.lib import format as npy

    header = {"descr": npy.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        npy.write_array_header_1_0(file, header)
        yield file


def map_array(path: Path) -> NDArray[Any]:
    """The array in an .npy file, mapped for reading; UserError if the file is missing or damaged."""
    import numpy as np

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: does not exist; make it first") from error
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: not a whole array; delete it and make it again") from error


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
