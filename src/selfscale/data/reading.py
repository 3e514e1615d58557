"""Photographs become crops, in worker processes; which of them can be used is decided in one place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from selfscale.data.decoding import Crop, Cropping, Unusable, decode_gray
from selfscale.data.sources import Photograph
from selfscale.files import read_json, write_bytes, write_json


@dataclass(frozen=True)
class Reading:
    """What became of a photograph: its crops and the SHA-256 of each, or why there are none.

    `shape` is its height and width in pixels, if it could be decoded.
    """

    name: str
    shape: tuple[int, int] = (0, 0)
    crops: tuple[Crop, ...] = ()
    hashes: tuple[str, ...] = ()
    reason: str = ""


class Shard(NamedTuple):
    """Some photographs; their crops are rows of the file `path`, what became of them is beside it."""

    path: Path
    photographs: Sequence[Photograph]


class Stored(NamedTuple):
    """A usable photograph of height and width `shape`; its crops are rows of `path`, from `row` on."""

    name: str
    shape: tuple[int, int]
    path: Path
    row: int
    crops: tuple[Crop, ...]
    hashes: tuple[str, ...]


class Skipped(NamedTuple):
    name: str
    reason: str


def read_shard(shard: Shard, size: int, crops: Cropping) -> tuple[Path, list[Reading]]:
    """Read a shard's photographs and write its files, unless they are there; runs in a worker process."""
    done = shard.path.with_suffix(".json")
    if done.exists():
        return shard.path, [as_reading(**content) for content in read_json(done, "prepare")]
    readings, pixels = [], []
    for photograph in shard.photographs:
        reading, found = read(photograph, size, crops)
        readings.append(reading)
        pixels += found
    write_bytes(shard.path, b"".join(pixels))
    # Written last: it says that the shard is whole.
    write_json(done, [asdict(reading) for reading in readings])
    return shard.path, readings


def as_reading(
    name: str, shape: tuple[int, int], crops: list[list[int]], hashes: list[str], reason: str
) -> Reading:
    """A reading as it was before JSON, which has no tuples."""
    height, width = shape
    return Reading(name, (height, width), tuple(Crop(*crop) for crop in crops), tuple(hashes), reason)


def read(photograph: Photograph, size: int, crops: Cropping) -> tuple[Reading, list[bytes]]:
    """Decode and crop one photograph; what became of it, and its crops' pixels."""
    try:
        gray = decode_gray(photograph.read())
    except Unusable as error:
        return Reading(photograph.name, reason=str(error)), []
    except OSError as error:  # the file itself cannot be read
        return Reading(photograph.name, reason=f"unreadable: {error.strerror}"), []
    height, width = gray.shape
    found = crops(gray, size)
    if not found:
        return Reading(photograph.name, reason=f"too small: {width}x{height}"), []
    pixels = [crop.tobytes() for _, crop in found]
    hashes = tuple(hashlib.sha256(crop).hexdigest() for crop in pixels)
    return Reading(photograph.name, (height, width), tuple(crop for crop, _ in found), hashes), pixels


def choose(shards: Iterable[tuple[Path, Sequence[Reading]]]) -> tuple[list[Stored], list[Skipped]]:
    """Which photographs can be used.

    One whose pixels came before is left out: under two names it could be trained on and tested on.
    So is one whose name came before, in another archive.
    """
    usable: list[Stored] = []
    skipped: list[Skipped] = []
    names: set[str] = set()
    by_pixels: dict[tuple[str, ...], str] = {}
    for path, readings in shards:
        row = 0
        for reading in readings:
            reason = reading.reason
            if not reason and reading.hashes in by_pixels:
                reason = f"the same pixels as {by_pixels[reading.hashes]}"
            elif not reason and reading.name in names:
                reason = "another photograph of the same name"
            if reason:
                skipped.append(Skipped(reading.name, reason))
            else:
                usable.append(Stored(reading.name, reading.shape, path, row, reading.crops, reading.hashes))
                names.add(reading.name)
                by_pixels[reading.hashes] = reading.name
            row += len(reading.crops)
    return usable, skipped
