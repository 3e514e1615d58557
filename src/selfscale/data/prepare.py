"""Photographs as arrays on disk: cropped, gray, split by photograph.

A prepared folder holds `train.npy`, `validation.npy` and `test.npy`, uint8 of shape N,H,W,1, and
`manifest.json`, which says what is in them. Equal settings and photographs make equal files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from selfscale import config
from selfscale.data import shards
from selfscale.data.reading import Shard, Skipped, Stored, choose, read_shard
from selfscale.data.sources import SOURCES, photographs
from selfscale.errors import UserError
from selfscale.files import code, read_json, write_json
from selfscale.nn.input_pipeline import Split
from selfscale.parallel import ordered_map, progress
from selfscale.storage import map_array, new_array, new_folder

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


def prepare(settings: config.Data, out: Path, workers: int | None = None) -> dict[str, Any]:
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
    inputs = [code(), settings.size, [photograph.state() for photograph in found]]
    with new_folder(out) as folder, shards.kept(out, inputs) as state:
        work = [Shard(state / f"{number:05}", part) for number, part in enumerate(shards.parts(found))]
        readings = ordered_map(partial(read_shard, size=settings.size, crops=crops), work, workers)
        usable, skipped = choose(progress(readings, "photographs", len(work)))
        if len(usable) < len(SPLITS):
            raise UserError(_too_few(settings.source, len(usable), skipped))
        splits = split_photographs(usable, settings.split, settings.split_seed)
        for name, members in splits.items():
            _write(folder / f"{name}.npy", members, settings.size)
        manifest = _manifest(settings, splits, skipped)
        write_json(folder / "manifest.json", manifest)
    return manifest


def split_photographs(
    usable: Sequence[Stored], shares: config.Split, seed: int
) -> dict[SplitName, list[Stored]]:
    """Each photograph in one split, by a random order; every split gets one at least.

    `usable` has three photographs or more. The largest split bears what rounding leaves over.
    """
    counts = [max(1, round(len(usable) * getattr(shares, name))) for name in SPLITS]
    counts[int(np.argmax(counts))] += len(usable) - sum(counts)
    order = np.random.default_rng(seed).permutation(len(usable))
    parts = np.split(order, np.cumsum(counts)[:-1])
    return {name: [usable[i] for i in part] for name, part in zip(SPLITS, parts, strict=True)}


def _write(path: Path, members: Sequence[Stored], size: int) -> None:
    rows = sum(len(stored.crops) for stored in members)
    with new_array(path, np.uint8, (rows, size, size, 1)) as file:
        for stored in members:
            with stored.path.open("rb") as shard:
                shard.seek(stored.row * size * size)
                file.write(shard.read(len(stored.crops) * size * size))


def _manifest(
    settings: config.Data, splits: dict[SplitName, list[Stored]], skipped: list[Skipped]
) -> dict[str, Any]:
    """`images` are in the order of the rows. Nothing in here depends on the machine or the time."""
    images = [
        {
            "split": split,
            "name": stored.name,
            "height": stored.shape[0],
            "width": stored.shape[1],
            **crop._asdict(),
            "sha256": sha256,
        }
        for split, members in splits.items()
        for stored in members
        for crop, sha256 in zip(stored.crops, stored.hashes, strict=True)
    ]
    return {
        "source": settings.source,
        "size": settings.size,
        "split_seed": settings.split_seed,
        "counts": {
            split: {"photographs": len(members), "images": sum(len(stored.crops) for stored in members)}
            for split, members in splits.items()
        },
        "fingerprint": hashlib.sha256(json.dumps([settings.size, images]).encode()).hexdigest(),
        "skipped_count": len(skipped),
        "skipped": [photograph._asdict() for photograph in skipped],
        "images": images,
    }


def _too_few(source: str, usable: int, skipped: list[Skipped]) -> str:
    example = f" (skipped {len(skipped)}: {skipped[0].name}: {skipped[0].reason})" if skipped else ""
    return (
        f"data.source: {source} has {usable} usable photographs, but train, validation and test "
        f"need one each{example}"
    )


def load_split(prepared: Path, targets: Path, name: SplitName) -> Split:
    """One split of a prepared folder with its targets, mapped for reading.

    Raises UserError if files are missing or damaged, or if the targets were made from other images.
    """
    check_targets(prepared, targets)
    images, wanted = map_array(prepared / f"{name}.npy"), map_array(targets / f"{name}.npy")
    if images.shape != wanted.shape:
        raise other_images(prepared, targets)
    return Split(images, wanted)


def check_targets(prepared: Path, targets: Path) -> None:
    """Raises UserError if either folder is missing, or if the targets were made from other images."""
    images_of = read_json(prepared / "manifest.json", stage="prepare")
    targets_of = read_json(targets / "manifest.json", stage=f"targets {targets.name}")
    if targets_of.get("images") != images_of.get("fingerprint"):
        raise other_images(prepared, targets)


def other_images(prepared: Path, targets: Path) -> UserError:
    return UserError(
        f"{targets}: made from other images than {prepared} holds; "
        f"run `selfscale targets {targets.name}` again"
    )
