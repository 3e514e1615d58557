"""Faults by the thousand, from a seed: damaged files for every reader, and writers on a full disk.

Each round makes one fault, and what comes of it is a value, a `UserError` (or what else the reader's
documentation names) or a finding: any other exception.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from selfscale import files, schemas
from selfscale.data.decoding import Unusable, decode_deep, decode_gray, read_file
from selfscale.errors import LONGEST, UserError
from selfscale.nn.checkpoint import Checkpoint
from selfscale.nn.fcn import build
from selfscale.nn.masking import MaskedNetwork
from selfscale.settings import load

CHECKOUT = Path(__file__).parent.parent.parent
DOCUMENTED = (UserError, Unusable)


class Reader(NamedTuple):
    """`read` is given the path of a damaged copy of `content`."""

    content: bytes
    suffix: str
    read: Callable[[Path], object]


def images() -> dict[str, Reader]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    made = {}
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP"):
        for mode in ("L", "RGB"):
            file = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(file, kind)
            decode = decode_deep if mode == "L" else decode_gray
            made[f"{kind} {mode}"] = Reader(file.getvalue(), "", lambda path, f=decode: f(read_file(path)))
    return made


def readers(folder: Path) -> dict[str, Reader]:
    """Every reader of the project's files, with a whole file of its kind."""
    model = build([3, 2], kernel=3)
    files.save_model(model, folder / "network.keras")
    files.write_array(folder / "rows.npy", np.zeros((4, 8, 8, 1), np.uint8))
    files.write_csv(folder / "curve.csv", ("step", "loss", "score"), [(20, 0.5, 0.3), (40, 0.25, 0.2)])
    files.write_json(folder / "budget.json", {"steps": 7})
    snapshot = Checkpoint(MaskedNetwork(model).state(), [], {"records": []}).to_bytes()

    def reader(name: str, read: Callable[[Path], object]) -> Reader:
        return Reader((folder / name).read_bytes(), Path(name).suffix, read)

    def restore(path: Path) -> object:
        try:
            return Checkpoint.from_bytes(path.read_bytes())
        except ValueError as error:  # as it documents
            raise UserError(str(error)) from error

    return {
        **images(),
        "network": reader("network.keras", lambda path: files.load_model(path, "train")),
        "array": reader("rows.npy", lambda path: files.map_array(path)),
        "table": reader("curve.csv", lambda path: files.read_csv(path, "train")),
        "result": reader("budget.json", lambda path: files.read_json(path, "budget", schemas.Budget)),
        "snapshot": Reader(snapshot, ".npz", restore),
        "settings": Reader((CHECKOUT / "params.yaml").read_bytes(), ".yaml", load),
    }


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, emptied in part, with other bytes, or with a part twice."""
    where, length = int(rng.integers(len(content))), int(rng.integers(1, 64))
    match rng.integers(5):
        case 0:
            return content[:where]
        case 1:
            return content[:where] + bytes(length) + content[where + length :]
        case 2:
            return content[:where] + rng.bytes(length) + content[where + length :]
        case 3:
            return content[:where] + content[where : where + length] * 3 + content[where + length :]
    changed = bytearray(content)
    changed[where] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def check_reader(reader: Reader, path: Path, rng: np.random.Generator) -> str:
    """What became of one damaged file: `read`, `refused`, or in words what must not be."""
    path.write_bytes(damaged(reader.content, rng))
    try:
        reader.read(path)
    except DOCUMENTED as error:
        whole = "\n" not in str(error) and len(str(error)) <= LONGEST + 100
        return "refused" if whole else f"more than one line: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"


def check_writer(folder: Path, rng: np.random.Generator) -> str:
    """A write that fails on a full disk leaves the former file, nothing beside it, and names the path."""
    path = folder / f"{'n' * int(rng.integers(1, 230))}.bin"
    former, temporary = rng.bytes(8), folder / f".{path.name}.tmp"
    files.write_bytes(path, former)
    temporary.symlink_to("/dev/full")
    try:
        files.write_bytes(path, b"new")
    except OSError as error:
        outcome = "refused" if error.filename == str(path) else f"names {error.filename}"
    else:
        outcome = "a full disk was not noticed"
    if path.read_bytes() != former or temporary.is_symlink():
        outcome = "something half-written is left"
    path.unlink()
    return outcome


def run(seconds: float, seed: int) -> tuple[Counter[str], list[str]]:
    """Count outcomes by the kind of fault; findings are what must not be, in words."""
    counts, findings, rng = Counter[str](), [], np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "written").mkdir()
        kinds, ends = readers(folder), time.monotonic() + seconds
        while time.monotonic() < ends:
            for kind, reader in kinds.items():
                outcome = check_reader(reader, folder / f"damaged{reader.suffix}", rng)
                counts[f"{kind}: {outcome if outcome in ('read', 'refused') else 'FAULT'}"] += 1
                if outcome not in ("read", "refused"):
                    findings.append(f"{kind}: {outcome}")
            if os.path.exists("/dev/full"):  # noqa: PTH110
                outcome = check_writer(folder / "written", rng)
                counts[f"full disk: {outcome}"] += 1
                if outcome != "refused":
                    findings.append(f"full disk: {outcome}")
    return counts, findings
