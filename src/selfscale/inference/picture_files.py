"""Which image files a command was given, and where what it makes of each belongs."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from selfscale.data import sources as photographs
from selfscale.data.decoding import FORMATS
from selfscale.errors import UserError

# What photographs for training may be, and GIF: its few colours matter less here.
READABLE = (*FORMATS, "GIF")
SUFFIXES = photographs.SUFFIXES | {".gif"}


class Picture(NamedTuple):
    """An image file, and its place below the output folder, without suffix."""

    path: Path
    name: Path


def find(words: Sequence[str], out: Path) -> list[Picture]:
    """The image files that `words` name: files, folders (searched recursively) and globs (also `**`).

    A file keeps its name relative to the folder, or to the part of the glob that is no pattern; a file that
    was named itself, its bare name. Folders are searched by suffix, except in the folder `out`, where
    former results lie; a file that was named itself is taken whatever its suffix. Each file is listed once.

    Raises:
        UserError: one of `words` names nothing, or there is no image at all; or `out` is itself one of the
            folders to search, where results would lie among the images.
    """
    found: dict[tuple[Path, Path], Picture] = {}
    for word in words:
        for path, name in named(word):
            for picture in below(path, name, out.resolve()) if path.is_dir() else [Picture(path, name)]:
                bare = Picture(picture.path, picture.name.with_suffix(""))
                found.setdefault((bare.path.resolve(), bare.name), bare)
    if not found:
        raise UserError(f"{' '.join(words)}: no image file found ({', '.join(sorted(SUFFIXES))})")
    return list(found.values())


def named(word: str) -> Iterator[tuple[Path, Path]]:
    """The files and folders that a word names, and the name of each from where the word's pattern begins."""
    path = Path(word).expanduser()
    if path.exists():
        yield path, Path() if path.is_dir() else Path(path.name)
        return
    if not glob.has_magic(word):
        raise UserError(f"{word}: there is no such file or folder")
    first = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
    fixed = Path(*path.parts[:first])
    try:
        matches = sorted(fixed.glob(str(Path(*path.parts[first:]))))
    except ValueError as error:
        raise UserError(f"{word}: is no pattern of file names: {error}") from error
    if not matches:
        raise UserError(f"{word}: no file has such a name")
    for match in matches:
        if match.is_dir() or match.suffix.lower() in SUFFIXES:
            yield match, match.relative_to(fixed)


def below(folder: Path, name: Path, out: Path) -> Iterator[Picture]:
    if folder.resolve() == out:
        raise UserError(f"--out: {folder} is the folder of the images; choose another one for the results")
    inside = out.is_relative_to(folder.resolve())
    for path in sorted(folder.rglob("*")):
        former = inside and path.resolve().is_relative_to(out)
        if path.suffix.lower() in SUFFIXES and not former and path.is_file():
            yield Picture(path, name / path.relative_to(folder))


def problems(pictures: Sequence[Picture], targets: Sequence[Path]) -> list[str | None]:
    """For each picture, in one line, why its target may not be written; None if it may.

    It is taken by an earlier picture, or it is one of the pictures.
    """
    sources = {picture.path.resolve() for picture in pictures}
    taken: dict[Path, Path] = {}
    found: list[str | None] = []
    for picture, target in zip(pictures, targets, strict=True):
        place = target.resolve()
        if place in sources:
            found.append(f"{picture.path}: skipped: {target} would overwrite an input; choose another --out")
        elif place in taken:
            found.append(f"{picture.path}: skipped: {target} is already what becomes of {taken[place]}")
        else:
            taken[place] = picture.path
            found.append(None)
    return found
