"""Files and folders that are written whole or not at all; the same content has the same bytes."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from selfscale import model_files, schemas
from selfscale.errors import UserError, reason

if TYPE_CHECKING:
    import keras
    import numpy as np
    from numpy.typing import DTypeLike, NDArray


def user_path(text: str, where: str) -> Path:
    """A path as the user wrote it, `~` included; UserError, with `where` as its key, if it can be none."""
    if not text.strip():
        raise UserError(f"{where}: is empty; name a file or folder")
    try:
        path = Path(text).expanduser()
        path.lstat()
    except RuntimeError as error:
        raise UserError(f"{where}: {text}: there is no such user; write the whole path") from error
    except ValueError as error:
        raise UserError(f"{where}: {text}: is no path: {reason(error)}") from error
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise UserError(f"{where}: {text}: {error.strerror}; name another one") from error
    return path


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; an OSError names `path`, whatever else was written first."""
    long = len(os.fsencode(path.name)) > 240  # a file's name has 255 bytes at most
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest() if long else path.name
    temporary = path.with_name(f".{name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_bytes(path: Path, stage: str) -> bytes:
    """Read what an earlier stage wrote; raises UserError naming the stage to run if it is not there."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path}: is missing; run `selfscale {stage}` first") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; make it readable") from error


def read_json(path: Path, stage: str, schema: Any = object) -> Any:
    """The same; raises UserError also if it is no JSON, or not as its schema says."""
    content = read_bytes(path, stage)
    if found := schemas.problem(content, schema):
        raise UserError(f"{path}: is damaged; run `selfscale {stage}` again ({found})")
    return json.loads(content)


def read_csv(path: Path, stage: str) -> list[dict[str, float]]:
    """The numbers of a table by its header; raises UserError also if there are none, or other things."""
    content = read_bytes(path, stage)
    lines = csv.DictReader(content.decode(errors="replace").splitlines())
    try:
        rows = [{name: float(value) for name, value in line.items()} for line in lines]
    except (csv.Error, TypeError, ValueError) as error:
        raise UserError(f"{path}: is damaged; run `selfscale {stage}` again") from error
    if not rows or not content.endswith(b"\n"):
        raise UserError(f"{path}: is {'cut off' if rows else 'empty'}; run `selfscale {stage}` again")
    return rows


def read_png(path: Path, stage: str) -> bytes:
    """The bytes of a picture; raises UserError also if it is empty, cut off or damaged."""
    content = read_bytes(path, stage)
    try:
        from PIL import Image

        Image.open(io.BytesIO(content), formats=["PNG"]).verify()
    except Exception as error:  # whatever Pillow raises on damaged bytes
        raise UserError(f"{path}: is damaged; run `selfscale {stage}` again") from error
    return content


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
    """Write a `.keras` file whose bytes depend on the model only."""
    write_bytes(path, model_files.to_bytes(model))


def load_model(path: Path, stage: str) -> keras.Model:
    """Load a `.keras` file; raises UserError naming the stage to run if it is missing or damaged."""
    if not path.exists():
        raise UserError(f"{path}: is missing; run `selfscale {stage}` first")
    try:
        return model_files.read(path)
    except ValueError as error:
        raise UserError(f"{path}: is damaged; run `selfscale {stage}` again ({error})") from error


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
        if error.errno is None:
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
    except Exception as error:  # whatever NumPy raises on a damaged header
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
