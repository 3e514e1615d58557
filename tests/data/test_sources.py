from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from skimage import io

from selfscale.data.decoding import decode_gray
from selfscale.data.sources import SOURCES, Photograph, photographs
from selfscale.data_config import Data, Folder
from selfscale.errors import UserError


def folder_of(path: Path | None) -> Data:
    return Data(source="folder", folder=Folder(path=None if path is None else str(path)))


def test_every_source_of_the_settings_is_there() -> None:
    assert set(SOURCES) == {"sample", "folder", "voc2012"}


def test_sample_has_the_photographs_of_the_installed_packages() -> None:
    found = photographs(Data())
    assert len(found) == 19
    assert [photograph.name for photograph in found] == sorted(photograph.name for photograph in found)
    assert {photograph.name.split("/")[0] for photograph in found} == {"matplotlib", "skimage", "sklearn"}
    for photograph in found:
        shape = io.imread(photograph.path).shape[:2]
        assert decode_gray(photograph.read()).shape == shape
        assert min(shape) >= 256


def test_sample_without_a_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package matplotlib, which is not installed"):
        photographs(Data())
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(
        UserError, match=r"the installed matplotlib has no mpl-data/sample_data/grace_hopper\.jpg"
    ):
        photographs(Data())


def test_folder_is_searched_recursively_by_suffix(tmp_path: Path) -> None:
    names = ["b.PNG", "a/z.jpg", "a/deep/er/y.Jpeg", "c.tif", "d.TIFF", "e.bmp", "f.webp"]
    for name in [*names, "note.txt", "a/png", "g.gif"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "h.png").mkdir()
    found = photographs(folder_of(tmp_path))
    assert [photograph.name for photograph in found] == sorted(names)


def test_photograph_is_read_from_its_place(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(b"0123456789")
    assert Photograph("whole", path).read() == b"0123456789"
    assert Photograph("part", path, offset=2, length=3).read() == b"234"


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.folder\.path: name the folder"):
        photographs(folder_of(None))
    with pytest.raises(UserError, match=r"^data\.folder\.path: .*absent does not exist$"):
        photographs(folder_of(tmp_path / "absent"))
    (tmp_path / "note.txt").write_text("")
    with pytest.raises(UserError, match=r"note\.txt is not a folder$"):
        photographs(folder_of(tmp_path / "note.txt"))
    with pytest.raises(UserError, match=r"has no image file \(\.bmp, \.jpeg"):
        photographs(folder_of(tmp_path))


def test_symbolic_links_to_files_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "real.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "link.png").symlink_to(tmp_path / "real.png")
    (tmp_path / "photos" / "gone.png").symlink_to(tmp_path / "nothing.png")
    assert [photograph.name for photograph in photographs(folder_of(tmp_path / "photos"))] == ["link.png"]
    assert "gone.png: is a pipe, a device or a link to nothing, and is passed over" in caplog.text
