"""Output folders that are whole or not there, and arrays written row by row."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from selfscale.errors import UserError

# What the user can put right; any other error of the system is shown as it is.
OF_THE_DISK = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR}
)


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
    try:
        held = FileLock(out.with_name(f".{out.name}.lock")).acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{out}: another process is writing it; wait until it has ended") from error
    with held:
        yield


def _delete(*folders: Path) -> None:
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)


@contextmanager
def new_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """An .npy file of that dtype and shape, to be filled by writing its rows' bytes in order.

    Written, not mapped: a full disk is an error here, but would kill a process that has it mapped.
    """
    header = {"descr": npy.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        npy.write_array_header_1_0(file, header)
        yield file


def map_array(path: Path) -> NDArray[Any]:
    """The array in an .npy file, mapped for reading; UserError if the file is missing or damaged."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: does not exist; make it first") from error
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: not a whole array; delete it and make it again") from error
