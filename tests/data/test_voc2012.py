from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from selfscale.data import voc2012
from selfscale.data.sources import photographs
from selfscale.data.voc2012 import archives, download, members
from selfscale.data_config import Data, Voc2012
from selfscale.errors import UserError

PREFIX = "VOCdevkit/VOC2012/JPEGImages"
CONTENTS = {f"2012_{number:06d}.jpg": bytes([number]) * (700 + number) for number in range(5)}


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def archive_of(contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        add(tar, PREFIX, type=tarfile.DIRTYPE)
        add(tar, "VOCdevkit/VOC2012/Annotations/2012_000000.xml", b"<annotation/>")
        for name, content in contents.items():
            add(tar, f"{PREFIX}/{name}", content)
    return file.getvalue()


ARCHIVE = archive_of(CONTENTS)
MD5 = hashlib.md5(ARCHIVE).hexdigest()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "local.tar"
    path.write_bytes(ARCHIVE)
    return path


def test_members_are_read_where_they_lie(local: Path) -> None:
    found = photographs(Data(source="voc2012", voc2012=Voc2012(archives=[str(local)])))
    assert {photograph.name: photograph.read() for photograph in found} == CONTENTS


def test_two_archives_are_read_one_after_the_other(local: Path, tmp_path: Path) -> None:
    second = tmp_path / "test.tar"
    second.write_bytes(archive_of({"2011_000001.jpg": b"test"}))
    settings = Voc2012(archives=[str(local), str(second)])
    assert archives(settings) == [local, second]
    found = photographs(Data(source="voc2012", voc2012=settings))
    assert [photograph.name for photograph in found] == ["2011_000001.jpg", *CONTENTS]
    assert found[0].read() == b"test"


def test_only_regular_files_straight_in_the_folder_count(tmp_path: Path) -> None:
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, f"{PREFIX}/good.jpg", b"good")
        add(tar, f"./{PREFIX}/dotted.jpg", b"good")
        add(tar, f"{PREFIX}/../../../../escaped.jpg", b"bad")
        add(tar, f"/{PREFIX}/absolute.jpg", b"bad")
        add(tar, f"{PREFIX}/below/deep.jpg", b"bad")
        add(tar, f"{PREFIX}/text.txt", b"bad")
        add(tar, "VOCdevkit/VOC2012/SegmentationClass/mask.jpg", b"bad")
        add(tar, f"{PREFIX}/link.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, f"{PREFIX}/hard.jpg", type=tarfile.LNKTYPE, linkname=f"{PREFIX}/good.jpg")
        add(tar, f"{PREFIX}/pipe.jpg", type=tarfile.FIFOTYPE)
        add(tar, f"{PREFIX}/sparse.jpg", pax_headers={"GNU.sparse.size": str(2**40), "GNU.sparse.map": "0,1"})
    assert [member.name for member in members(path)] == ["good.jpg", "dotted.jpg"]
    assert list(tmp_path.iterdir()) == [path]


def test_an_archive_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.tar"
    end = len(ARCHIVE.rstrip(b"\0"))
    # Also on the border between two members, where tarfile sees nothing wrong.
    for length in [*range(0, end, 256), end - 1]:
        path.write_bytes(ARCHIVE[:length])
        with pytest.raises(UserError) as error:
            members(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)


def test_damage_and_other_kinds_of_file(tmp_path: Path, local: Path) -> None:
    path = tmp_path / "other.tar"
    second_header = ARCHIVE.index(f"{PREFIX}/2012_000002.jpg".encode())
    path.write_bytes(ARCHIVE[:second_header] + b"rubbish" + ARCHIVE[second_header + 7 :])
    with pytest.raises(UserError, match="cut off or damaged"):
        members(path)
    with tarfile.open(path, "w:gz") as tar:
        add(tar, f"{PREFIX}/a.jpg", b"a")
    with pytest.raises(UserError, match="not a whole, uncompressed tar archive"):
        members(path)
    path.write_bytes(archive_of({}))
    with pytest.raises(UserError, match="is it a VOC2012 archive"):
        members(path)


def test_missing_local_archive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.voc2012\.archives: .*absent\.tar does not exist$"):
        archives(Voc2012(archives=[str(tmp_path / "absent.tar")]))
    with pytest.raises(UserError, match=r"is not a file$"):
        archives(Voc2012(archives=[str(tmp_path)]))


class Server(ThreadingHTTPServer):
    """Answers `/whole.tar`, `/cut.tar` (the connection breaks), `/short.tar` and 404 for the rest.

    The first `failures` requests get 503.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests = 0
        self.failures = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.server.requests <= self.server.failures:
            self.send_error(503)
            return
        if self.path not in ("/whole.tar", "/cut.tar", "/short.tar"):
            self.send_error(404)
            return
        body = ARCHIVE if self.path == "/whole.tar" else ARCHIVE[: len(ARCHIVE) // 2]
        self.send_response(200)
        if self.path != "/short.tar":
            self.send_header("Content-Length", str(len(ARCHIVE)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    # Retries at once.
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_download_once(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data" / "raw"
    path = download(f"{server.url}/whole.tar", MD5, folder)
    assert path == folder / "whole.tar"
    assert path.read_bytes() == ARCHIVE
    assert download(f"{server.url}/whole.tar", MD5, folder) == path
    assert server.requests == 1
    assert capfd.readouterr().err == ""


def test_the_default_is_the_download(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Data(source="voc2012", voc2012=Voc2012(url=f"{server.url}/whole.tar", md5=MD5))
    assert [photograph.name for photograph in photographs(settings)] == list(CONTENTS)
    assert (tmp_path / "data" / "raw" / "whole.tar").is_file()


def test_a_damaged_file_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "whole.tar").write_bytes(ARCHIVE[:1000])
    assert download(f"{server.url}/whole.tar", MD5, tmp_path).read_bytes() == ARCHIVE


def test_a_passing_failure_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.failures = 2
    assert download(f"{server.url}/whole.tar", MD5, tmp_path).read_bytes() == ARCHIVE
    assert server.requests == 3


@pytest.mark.parametrize(
    ("path", "md5", "message"),
    [
        ("/cut.tar", MD5, "cannot be downloaded: the connection breaks off"),
        ("/short.tar", MD5, "cut off or altered"),
        ("/whole.tar", "0" * 32, "its checksum is not 00000000000000000000000000000000"),
        ("/absent.tar", MD5, "cannot be downloaded: the server answers 404 Not Found"),
    ],
)
def test_failed_downloads_are_one_line_and_leave_nothing(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str], path: str, md5: str, message: str
) -> None:
    with pytest.raises(UserError) as error:
        download(f"{server.url}{path}", md5, tmp_path)
    assert message in str(error.value)
    assert str(error.value).startswith("data.voc2012.")
    assert "\n" not in str(error.value)
    assert server.requests == 1 + voc2012.RETRIES
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_absent_server(server: Server, tmp_path: Path) -> None:
    url = f"{server.url}/whole.tar"
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="cannot be downloaded: the server does not answer; try again"):
        download(url, MD5, tmp_path)
    with pytest.raises(UserError, match=r"No connection adapters were found for 'ftp://host/a\.tar'"):
        download("ftp://host/a.tar", MD5, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_download_where_nothing_can_be_stored(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be stored"):
        download(f"{server.url}/whole.tar", MD5, tmp_path / "file")
