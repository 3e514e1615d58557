"""Where photographs come from: named sources of encoded image files."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from selfscale.data import voc2012
from selfscale.data.cropping import Cropping, Crops, centre_crop, tiles
from selfscale.data.decoding import Gray, read_file
from selfscale.data_config import Data
from selfscale.errors import UserError
from selfscale.files import user_path

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})

# All photographs of these packages that are large enough; drawings, texts and stereo twins are left out.
SAMPLE = {
    "matplotlib": ("mpl-data/sample_data", "grace_hopper.jpg"),
    "skimage": (
        "data",
        "astronaut.png brick.png camera.png cell.png chelsea.png clock_motion.png coffee.png coins.png "
        "grass.png gravel.png hubble_deep_field.jpg ihc.png moon.png motorcycle_left.png retina.jpg "
        "rocket.jpg",
    ),
    "sklearn": ("datasets/images", "china.jpg flower.jpg"),
}
MOST_TILES = 8  # of a photograph of the sample, so that none outweighs the others


@dataclass(frozen=True)
class Photograph:
    """An encoded image file: `length` bytes at `offset` of the file at `path`, by default all of it.

    `name` says where it is within its source, never where the source is on this machine. Only the
    place is kept, so that the bytes are read by the process that decodes them.
    """

    name: str
    path: Path
    offset: int = 0
    length: int = -1

    def state(self) -> tuple[str, str, int, int, int, int]:
        """What changes when other bytes are there: for a file that is not read, without reading it."""
        found = self.path.stat()
        place = str(self.path.absolute()), self.offset, self.length
        return self.name, *place, found.st_size, found.st_mtime_ns

    def read(self) -> bytes:
        return read_file(self.path, self.offset, self.length)


@dataclass(frozen=True)
class Source:
    """How photographs are found, and which crops of one are used."""

    photographs: Callable[[Data], list[Photograph]]
    crops: Cropping


def photographs(settings: Data) -> list[Photograph]:
    """All photographs of the source that the settings name, in the order of their names.

    Files are listed, or downloaded, but not decoded. Raises UserError if there is none.
    """
    found = SOURCES[settings.source].photographs(settings)
    return sorted(found, key=lambda photograph: photograph.name)


def sample(settings: Data) -> list[Photograph]:
    """The photographs inside installed packages; needs no network."""
    found = []
    for package, (folder, names) in SAMPLE.items():
        spec = importlib.util.find_spec(package)  # without importing it
        if spec is None or spec.origin is None:
            raise UserError(f"data.source: sample needs the package {package}, which is not installed")
        for name in names.split():
            path = Path(spec.origin).parent / folder / name
            if not path.is_file():
                raise UserError(f"data.source: the installed {package} has no {folder}/{name}; reinstall it")
            found.append(Photograph(f"{package}/{name}", path))
    return found


def some_tiles(gray: Gray, size: int) -> Crops:
    """At most `MOST_TILES` of all tiles, evenly spaced over the photograph and its scales."""
    found = tiles(gray, size)
    count = min(len(found), MOST_TILES)
    return [found[position * len(found) // count] for position in range(count)]


def folder(settings: Data) -> list[Photograph]:
    """Every image file below `data.folder.path`, by its suffix in small or capital letters."""
    if settings.folder.path is None:
        raise UserError("data.folder.path: name the folder of photographs that data.source: folder reads")
    root = user_path(settings.folder.path, "data.folder.path")
    files = image_files(root, "data.folder.path")
    return [Photograph(path.relative_to(root).as_posix(), path) for path in files]


def image_files(root: Path, where: str) -> list[Path]:
    """Every image file below a folder, sorted; UserError, with `where` as the setting's key, without any."""
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"{where}: {root} {problem}")
    files = find_images(root, SUFFIXES)
    if not files:
        raise UserError(f"{where}: {root} has no image file ({', '.join(sorted(SUFFIXES))})")
    return files


def find_images(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """All files below a folder with one of the suffixes, in small or capital letters, sorted.

    Folders that are linked are searched, too, each once; UserError for one that cannot be read. A pipe or
    a link to nothing is passed over with a warning.
    """

    def stop(error: OSError) -> None:
        raise UserError(f"{error.filename}: {error.strerror}; make it readable or move it away") from error

    found, seen = list[Path](), {folder.resolve()}
    for place, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        real = {Path(place, name).resolve(): name for name in sorted(folders, reverse=True)}
        folders[:] = sorted(name for path, name in real.items() if path not in seen)
        seen |= real.keys()
        found += [path for name in names if (path := Path(place, name)).suffix.lower() in suffixes]
    for path in (path for path in found if not path.is_file()):
        log.warning("%s: is a pipe, a device or a link to nothing, and is passed over", path)
    return sorted(path for path in found if path.is_file())


def voc(settings: Data) -> list[Photograph]:
    """The photographs of the VOC2012 archives, read where they lie in the tar files."""
    return [
        Photograph(member.name, archive, member.offset, member.length)
        for archive in voc2012.archives(settings.voc2012)
        for member in voc2012.members(archive)
    ]


SOURCES = {
    "sample": Source(sample, some_tiles),
    "folder": Source(folder, centre_crop),
    "voc2012": Source(voc, centre_crop),
}
