"""Targets that are files: a folder of wanted outputs, each with the name of its input.

A wanted output is a gray image of the size of its input, and is cropped like it. Names are relative to the
two folders, without their suffixes: `street/1.jpg` and `street/1.png` are a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfscale.data.decoding import Unusable, decode_deep, deep_and_orientation, read_file
from selfscale.data.sources import image_files
from selfscale.errors import UserError
from selfscale.files import user_path

WHITE = 65535  # wanted outputs are kept with 16 bits until all of them are known


class Pair(NamedTuple):
    """The file of a wanted output; name, shape and EXIF orientation of its input; where the crop lies."""

    path: Path
    name: str
    shape: tuple[int, int]
    top: int
    left: int
    orientation: int


def paired(folder: str, manifest: Mapping[str, Any], where: str) -> list[Pair]:
    """A pair for each image of a prepared folder's manifest, in the same order.

    Raises:
        UserError: a file has no partner or more than one, with `where` as the setting's key; or the
            images are not crops of whole files at their own scale.
    """
    root = user_path(folder, where)
    wanted = _by_name(image_files(root, where), root, where)
    images = manifest["images"]
    if any(image["scale"] != 1 for image in images):
        raise UserError(
            f"{where}: data.source has to be folder; {manifest['source']} has images without files"
        )
    for image in images:
        if pair_name(image["name"]) not in wanted:
            raise UserError(f"{where}: {root} has no wanted output for the input {image['name']}")
    names = {entry["name"] for entry in [*images, *manifest["skipped"]]}
    inputs = _by_name(sorted(map(Path, names)), Path(), f"{where}: inputs")
    for name, path in wanted.items():
        if name not in inputs:
            raise UserError(f"{where}: {path} has no input of that name")
    return [
        Pair(
            wanted[pair_name(image["name"])],
            image["name"],
            (image["height"], image["width"]),
            image["top"],
            image["left"],
            image.get("orientation", 1),
        )
        for image in images
    ]


def pair_name(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _by_name(paths: Sequence[Path], root: Path, where: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        name = pair_name(path.relative_to(root).as_posix())
        if name in found:
            raise UserError(f"{where}: {found[name]} and {path} have the same name; keep one of them")
        found[name] = path
    return found


def state(pairs: Iterable[Pair]) -> list[tuple[str, int, int]]:
    """What changes when other wanted outputs are there, without reading them."""
    found = [(pair.path, pair.path.stat()) for pair in pairs]
    return [(str(path.absolute()), stat.st_size, stat.st_mtime_ns) for path, stat in found]


def cut(pair: Pair, size: int) -> NDArray[np.uint16]:
    """The wanted output of one crop, from 0 to 65535.

    Raises:
        UserError: the file is broken, or of another size or EXIF orientation than its input.
    """
    try:
        gray, turned = deep_and_orientation(read_file(pair.path))
    except Unusable as error:
        raise UserError(f"{pair.path}: {error}") from error
    if turned != pair.orientation:  # and programs differ in which of them they turn
        raise UserError(
            f"{pair.path}: has the EXIF orientation {turned}, but its input {pair.name} has "
            f"{pair.orientation}; turn both upright and save them without orientation"
        )
    if gray.shape != pair.shape:
        found, wanted = (f"{width}x{height}" for height, width in (gray.shape, pair.shape))
        raise UserError(
            f"{pair.path}: has {found} pixels, but its input {pair.name} has {wanted}; make them equal"
        )
    return gray[pair.top : pair.top + size, pair.left : pair.left + size]


def varies(pair: Pair) -> bool:
    """Whether a wanted output has different values, also outside of the crop."""
    return len(np.unique(decode_deep(read_file(pair.path)))) > 1


def encoding(paths: Iterable[Path]) -> tuple[bool, Callable[[bytes], bytes]]:
    """Whether the wanted outputs in all shards have just two values, and what makes targets of a shard.

    If so, the targets are uint8, 0 for the lower and 1 for the higher value; else float16 from 0 to 1.
    """
    values: set[int] = set()
    for path in paths:
        values.update(np.unique(_read(path.read_bytes())).tolist())
    if len(values) != 2:
        return False, lambda shard: (_read(shard) / WHITE).astype(np.float16).tobytes()
    high = max(values)
    return True, lambda shard: (_read(shard) == high).astype(np.uint8).tobytes()


def _read(shard: bytes) -> NDArray[np.uint16]:
    return np.frombuffer(shard, np.uint16)
