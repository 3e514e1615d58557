"""The archives of VOC2012: fetched once, read without unpacking."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

import pooch
import requests

from selfscale.data_config import Voc2012
from selfscale.errors import UserError, reason
from selfscale.files import user_path

DOWNLOADS = Path("data/raw")
PHOTOGRAPHS = PurePosixPath("VOCdevkit/VOC2012/JPEGImages")
RETRIES = 2


class Member(NamedTuple):
    """A photograph inside an archive: its file name, and where its bytes are."""

    name: str
    offset: int
    length: int


def archives(settings: Voc2012) -> list[Path]:
    """The local archives that the settings name, or else the official one, downloaded if need be."""
    if not settings.archives:
        return [download(settings.url, settings.md5)]
    paths = [user_path(path, "data.voc2012.archives") for path in settings.archives]
    for path in paths:
        if not path.is_file():
            problem = "is not a file" if path.exists() else "does not exist"
            raise UserError(f"data.voc2012.archives: {path} {problem}")
    return paths


def download(url: str, md5: str, folder: Path = DOWNLOADS) -> Path:
    """The file at `url`, fetched into `folder` unless it is there already with that checksum.

    It appears in the folder only when it is whole and its checksum right; broken connections and
    wrong checksums are tried again. Raises UserError when that is of no use.
    """
    pooch.get_logger().setLevel("WARNING")
    name = PurePosixPath(urlsplit(url).path).name
    shelf = pooch.create(
        path=folder, base_url="", registry={name: f"md5:{md5}"}, urls={name: url}, retry_if_failed=RETRIES
    )
    fetch = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**20)
    try:
        return Path(shelf.fetch(name, downloader=fetch))
    except requests.RequestException as error:
        raise UserError(
            f"data.voc2012.url: {url} cannot be downloaded: {_reason(error)}; try again later, "
            "or name local files in data.voc2012.archives"
        ) from error
    except ValueError as error:
        raise UserError(
            f"data.voc2012.md5: what {url} sends is cut off or altered: its checksum is not {md5}; "
            "correct data.voc2012.md5, or name local files in data.voc2012.archives"
        ) from error
    except OSError as error:
        raise UserError(f"{folder}: {url} cannot be stored: {error.strerror or error}") from error


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection breaks off"
    if isinstance(error, (requests.ConnectionError, requests.Timeout)):
        return "the server does not answer"
    return str(error)


def members(archive: Path) -> list[Member]:
    """The photographs in an uncompressed tar archive of VOC's layout.

    Only regular files straight in JPEGImages count. Nothing is extracted: their bytes are read
    where they lie, so a member's name can never become a path. Raises UserError if the archive is
    cut off or has none.
    """
    found = []
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                # A sparse member claims more bytes than are stored.
                stored = member.isreg() and not member.issparse()
                if stored and path.parent == PHOTOGRAPHS and path.suffix == ".jpg":
                    found.append(Member(path.name, member.offset_data, member.size))
            # tarfile takes an archive that ends between two members, or in rubbish, for a whole one.
            tar.fileobj.seek(tar.offset)
            ended = tar.fileobj.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
    except Exception as error:  # whatever tarfile raises on damaged bytes
        raise UserError(f"{archive}: not a whole, uncompressed tar archive: {reason(error)}") from error
    if not ended:
        raise UserError(f"{archive}: the archive is cut off or damaged; fetch it again")
    if not found:
        raise UserError(f"{archive}: no photograph {PHOTOGRAPHS}/*.jpg in it; is it a VOC2012 archive?")
    return found
