"""Photographs read, cropped and stored one after another, with the reasons of those left out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, NamedTuple

from selfscale.decoding import Crop, Cropping, Unusable, decode_gray
from selfscale.photographs import Photograph


@dataclass(frozen=True)
class Reading:
    """What became of a photograph: its crops, as bytes with their SHA-256, or why there are none."""

    name: str
    crops: tuple[Crop, ...] = ()
    pixels: tuple[bytes, ...] = ()
    hashes: tuple[str, ...] = ()
    reason: str = ""


class Stored(NamedTuple):
    """A usable photograph; its crops are rows of the scratch file, from `row` on."""

    name: str
    row: int
    crops: tuple[Crop, ...]
    hashes: tuple[str, ...]


class Skipped(NamedTuple):
    name: str
    reason: str


def read(photograph: Photograph, size: int, crops: Cropping) -> Reading:
    """Decode and crop one photograph; runs in a worker process."""
    try:
        gray = decode_gray(photograph.read())
    except Unusable as error:
        return Reading(photograph.name, reason=str(error))
    except OSError as error:  # the file itself cannot be read
        return Reading(photograph.name, reason=f"unreadable: {error.strerror}")
    found = crops(gray, size)
    if not found:
        height, width = gray.shape
        return Reading(photograph.name, reason=f"too small: {width}x{height}")
    pixels = tuple(crop.tobytes() for _, crop in found)
    hashes = tuple(hashlib.sha256(crop).hexdigest() for crop in pixels)
    return Reading(photograph.name, tuple(crop for crop, _ in found), pixels, hashes)


def store(readings: Iterator[Reading], scratch: IO[bytes]) -> tuple[list[Stored], list[Skipped]]:
    """Append all crops to the scratch file.

    A photograph whose pixels came before is left out: under two names it could be trained on and
    tested on. So is one whose name came before, in another archive.
    """
    usable: list[Stored] = []
    skipped: list[Skipped] = []
    names: set[str] = set()
    by_pixels: dict[tuple[str, ...], str] = {}
    row = 0
    for reading in readings:
        reason = reading.reason
        if not reason and reading.hashes in by_pixels:
            reason = f"the same pixels as {by_pixels[reading.hashes]}"
        elif not reason and reading.name in names:
            reason = "another photograph of the same name"
        if reason:
            skipped.append(Skipped(reading.name, reason))
            continue
        scratch.writelines(reading.pixels)
        usable.append(Stored(reading.name, row, reading.crops, reading.hashes))
        names.add(reading.name)
        by_pixels[reading.hashes] = reading.name
        row += len(reading.pixels)
    return usable, skipped
