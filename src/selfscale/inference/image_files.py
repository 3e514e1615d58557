"""Which image files a command was given, and where the result of each belongs."""

from __future__ import annotations

import glob
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfscale.data import sources
from selfscale.data.decoding import FORMATS, Unusable, decode_colour, decode_gray, read_file
from selfscale.errors import UserError
from selfscale.files import user_path

# Formats of training photographs, and GIF: its few colours matter less here.
READABLE = (*FORMATS, "GIF")
SUFFIXES = sources.SUFFIXES | {".gif"}
LARGEST = 100_000_000  # pixels of an image


class ImageFile(NamedTuple):
    """An image file, and its place below the output folder, without suffix."""

    path: Path
    name: Path


def find(words: Sequence[str], out: Path) -> list[ImageFile]:
    """List the image files that `words` name, each once.

    A file keeps its name relative to the folder, or to the part of the glob that is no pattern.

    Args:
        words: Files, folders (searched recursively, by suffix) and globs (also `**`). A file that is
            named itself is taken whatever its suffix, under its bare name.
        out: The folder of the results; former results in it are no inputs.

    Raises:
        UserError: A word names nothing, there is no image at all, or `out` is itself one of the folders
            to search.
    """
    found: dict[tuple[Path, Path], ImageFile] = {}
    for word in words:
        for path, name in _matches(word):
            for file in _below(path, name, out.resolve()) if path.is_dir() else [ImageFile(path, name)]:
                file = file._replace(name=file.name.with_suffix(""))
                found.setdefault((file.path.resolve(), file.name), file)
    if not found:
        raise UserError(f"{' '.join(words)}: no image file found ({', '.join(sorted(SUFFIXES))})")
    return list(found.values())


def _matches(word: str) -> Iterator[tuple[Path, Path]]:
    """Yield files and folders, each with its name from where the word's pattern begins."""
    path = user_path(word, "an image's path")
    if path.exists():
        if not (path.is_file() or path.is_dir()):
            raise UserError(f"{word}: is neither a file nor a folder; name an image file")
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


def _below(folder: Path, name: Path, out: Path) -> Iterator[ImageFile]:
    if folder.resolve() == out:
        raise UserError(f"--out: {folder} is the folder of the images; choose another one for the results")
    inside = out.is_relative_to(folder.resolve())
    for path in sources.find_images(folder, SUFFIXES):
        if not (inside and path.resolve().is_relative_to(out)):
            yield ImageFile(path, name / path.relative_to(folder))


def process(
    files: Sequence[ImageFile],
    targets: Sequence[Path],
    write: Callable[[NDArray[np.uint8], ImageFile, Path], None],
    channels: int = 1,
) -> Iterator[str | None]:
    """Call `write(image, file, target)` for each image; yield in one line why it was skipped, or None.

    `image` is decoded, uint8 (H, W), or (H, W, 3) with 3 `channels`; `write` raises Unusable for one that
    it cannot process. An image is skipped, too, if its target is one of the files, or the target of an
    earlier one.
    """
    inputs = {file.path.resolve() for file in files}
    taken: dict[Path, Path] = {}
    for file, target in zip(files, targets, strict=True):
        try:
            place = target.resolve()
            if place in inputs:
                raise Unusable(f"{target} would overwrite an input; choose another --out")
            if place in taken:
                raise Unusable(f"{target} is already what becomes of {taken[place]}")
            taken[place] = file.path
            write(_read(file.path, channels), file, target)
        except Unusable as error:
            yield f"{file.path}: skipped: {error}"
        except OSError as error:  # of the result: the others may have room, or a shorter name
            yield f"{file.path}: skipped: {target} cannot be written: {error.strerror}"
        else:
            yield None


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode an image, (H, W) or (H, W, 3)."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def _read(path: Path, channels: int) -> NDArray[np.uint8]:
    decode = decode_gray if channels == 1 else decode_colour
    return decode(read_file(path), LARGEST, READABLE)
