"""Photographs as arrays on disk: cropped, gray, split by photograph.

A prepared folder holds `train.npy`, `validation.npy` and `test.npy`, uint8 of shape N,H,W,1, and
`manifest.json`, which says what is in them. Equal settings and photographs make equal files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter

from selfscale.data import shards
from selfscale.data.cropping import Crop, Cropping
from selfscale.data.decoding import Unusable, gray_and_orientation
from selfscale.data.sources import SOURCES, Photograph, photographs
from selfscale.data_config import Data, Shares
from selfscale.errors import UserError
from selfscale.files import map_array, new_array, new_folder, read_json, write_bytes, write_json
from selfscale.nn.input_pipeline import Split
from selfscale.schemas import Prepared, SplitName, Targets

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class Reading(NamedTuple):
    """What became of a photograph: its crops and the SHA-256 of each, or why there are none.

    `shape` is its height and width in pixels, upright, if it could be decoded.
    """

    name: str
    shape: tuple[int, int] = (0, 0)
    crops: tuple[Crop, ...] = ()
    hashes: tuple[str, ...] = ()
    reason: str = ""
    turned: int = 1  # EXIF orientation that the file had


READINGS = TypeAdapter(list[Reading])


class Shard(NamedTuple):
    """Some photographs; their crops are rows of the file `path`, what became of them is beside it."""

    path: Path
    photographs: Sequence[Photograph]


class Stored(NamedTuple):
    """A usable photograph; its crops are rows of `path`, from `row` on."""

    reading: Reading
    path: Path
    row: int


def prepare(settings: Data, out: Path, workers: int | None = None) -> dict[str, Any]:
    """Decode and crop all photographs, split them, and write the prepared folder `out`.

    Within a split, photographs are in random order (the same for the same `split_seed`), so that
    the first rows are a fair sample. Memory does not grow with the number of photographs: crops
    stay in shards on disk until it is known which photographs can be used, and so be split. Cut off,
    it goes on after the last finished shard, as long as settings and files are the same.
    Returns the manifest. Raises UserError if fewer than three photographs can be used, or if `out`
    cannot be written; `out` is then as it was before.
    """
    found = photographs(settings)
    crops = SOURCES[settings.source].crops
    inputs = [settings.size, [photograph.state() for photograph in found]]
    with new_folder(out) as folder, shards.kept(out, inputs) as state:
        work = [Shard(state / f"{number:05}", part) for number, part in enumerate(shards.parts(found))]
        read = partial(read_shard, size=settings.size, crops=crops)
        usable, skipped = choose(shards.ordered_map(read, work, workers, "photographs"))
        if len(usable) < len(SPLITS):
            example = "".join(
                f" (skipped {len(skipped)}: {one['name']}: {one['reason']})" for one in skipped[:1]
            )
            raise UserError(
                f"data.source: {settings.source} has {len(usable)} usable photographs, but train, validation "
                f"and test need one each{example}"
            )
        splits = split_photographs(usable, settings.split, settings.split_seed)
        for name, members in splits.items():
            _write(folder / f"{name}.npy", members, settings.size)
        manifest = _manifest(settings, splits, skipped)
        write_json(folder / "manifest.json", manifest)
    return manifest


def read_shard(shard: Shard, size: int, crops: Cropping) -> tuple[Path, list[Reading]]:
    """Read a shard's photographs and write its files, unless they are there; runs in a worker process."""
    done = shard.path.with_suffix(".json")
    if done.exists():
        return shard.path, READINGS.validate_json(done.read_bytes())
    readings, pixels = [], []
    for photograph in shard.photographs:
        reading, found = read(photograph, size, crops)
        readings.append(reading)
        pixels += found
    write_bytes(shard.path, b"".join(pixels))
    # Written last: it says that the shard is whole.
    write_bytes(done, READINGS.dump_json(readings))
    return shard.path, readings


def read(photograph: Photograph, size: int, crops: Cropping) -> tuple[Reading, list[bytes]]:
    """Decode and crop one photograph; what became of it, and its crops' pixels."""
    try:
        gray, turned = gray_and_orientation(photograph.read())
    except Unusable as error:
        return Reading(photograph.name, reason=str(error)), []
    height, width = gray.shape
    found = crops(gray, size)
    if not found:
        return Reading(photograph.name, reason=f"too small: {width}x{height}"), []
    pixels = [crop.tobytes() for _, crop in found]
    hashes = tuple(hashlib.sha256(crop).hexdigest() for crop in pixels)
    places = tuple(crop for crop, _ in found)
    return Reading(photograph.name, (height, width), places, hashes, turned=turned), pixels


def choose(
    readings_of: Iterable[tuple[Path, Sequence[Reading]]],
) -> tuple[list[Stored], list[dict[str, str]]]:
    """Which photographs can be used.

    One whose pixels came before is left out: under two names it could be trained on and tested on.
    So is one whose name came before, in another archive.
    """
    usable: list[Stored] = []
    skipped: list[dict[str, str]] = []
    names: set[str] = set()
    by_pixels: dict[tuple[str, ...], str] = {}
    for path, readings in readings_of:
        row = 0
        for reading in readings:
            reason = reading.reason
            if not reason and reading.hashes in by_pixels:
                reason = f"the same pixels as {by_pixels[reading.hashes]}"
            elif not reason and reading.name in names:
                reason = "another photograph of the same name"
            if reason:
                skipped.append({"name": reading.name, "reason": reason})
            else:
                usable.append(Stored(reading, path, row))
                names.add(reading.name)
                by_pixels[reading.hashes] = reading.name
            row += len(reading.crops)
    return usable, skipped


def split_photographs(usable: Sequence[Stored], shares: Shares, seed: int) -> dict[SplitName, list[Stored]]:
    """Each photograph in one split, by a random order; every split gets one at least.

    `usable` has three photographs or more. The largest split bears what rounding leaves over.
    """
    counts = [max(1, round(len(usable) * getattr(shares, name))) for name in SPLITS]
    counts[int(np.argmax(counts))] += len(usable) - sum(counts)
    order = np.random.default_rng(seed).permutation(len(usable))
    parts = np.split(order, np.cumsum(counts)[:-1])
    return {name: [usable[i] for i in part] for name, part in zip(SPLITS, parts, strict=True)}


def _write(path: Path, members: Sequence[Stored], size: int) -> None:
    rows = sum(len(stored.reading.crops) for stored in members)
    with new_array(path, np.uint8, (rows, size, size, 1)) as file:
        for stored in members:
            with stored.path.open("rb") as shard:
                shard.seek(stored.row * size * size)
                file.write(shard.read(len(stored.reading.crops) * size * size))


def _manifest(
    settings: Data, splits: dict[SplitName, list[Stored]], skipped: list[dict[str, str]]
) -> dict[str, Any]:
    """`images` are in the order of the rows. Nothing in here depends on the machine or the time."""
    images = [
        {
            "split": split,
            "name": reading.name,
            "height": reading.shape[0],
            "width": reading.shape[1],
            **crop._asdict(),
            "sha256": sha256,
            **({"orientation": reading.turned} if reading.turned != 1 else {}),
        }
        for split, members in splits.items()
        for reading, *_ in members
        for crop, sha256 in zip(reading.crops, reading.hashes, strict=True)
    ]
    return {
        "source": settings.source,
        "size": settings.size,
        "split_seed": settings.split_seed,
        "counts": {
            split: {
                "photographs": len(members),
                "images": sum(len(stored.reading.crops) for stored in members),
            }
            for split, members in splits.items()
        },
        "fingerprint": hashlib.sha256(json.dumps([settings.size, images]).encode()).hexdigest(),
        "skipped_count": len(skipped),
        "skipped": skipped,
        "images": images,
    }


def load_split(prepared: Path, targets: Path, name: SplitName) -> Split:
    """One split of a prepared folder with its targets, mapped for reading.

    Raises UserError if files are missing or damaged, or if the targets were made from other images.
    """
    manifest = read_json(prepared / "manifest.json", "prepare", Prepared)
    made = read_json(targets / "manifest.json", f"targets {targets.name}", Targets)
    images, wanted = map_array(prepared / f"{name}.npy"), map_array(targets / f"{name}.npy")
    if made["images"] != manifest["fingerprint"] or images.shape != wanted.shape:
        raise UserError(
            f"{targets}: made from other images than {prepared} holds; "
            f"run `selfscale targets {targets.name}` again"
        )
    names = [entry["name"] for entry in manifest["images"] if entry["split"] == name]
    return Split(images, wanted, np.unique(names, return_inverse=True)[1])
