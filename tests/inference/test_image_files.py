from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from selfscale.errors import UserError
from selfscale.inference.image_files import find, process

OUT = Path("out")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.png", "a/deep/2.JPG", "a/notes.txt", "b/1.tif", "b/x.psd", "c/"):
        path = tmp_path / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return tmp_path


def names(*words, out=OUT):
    return {str(file.path): str(file.name) for file in find(words, out)}


def test_a_folder_is_searched_and_keeps_its_structure():
    assert names("a") == {"a/1.png": "1", "a/deep/2.JPG": "deep/2"}
    assert names(".") == {"a/1.png": "a/1", "a/deep/2.JPG": "a/deep/2", "b/1.tif": "b/1"}


def test_a_file_that_is_named_keeps_its_bare_name_whatever_its_suffix():
    assert names("a/deep/2.JPG", "b/x.psd") == {"a/deep/2.JPG": "2", "b/x.psd": "x"}


def test_globs_keep_what_is_behind_their_fixed_part(folder):
    assert names("a/*.png") == {"a/1.png": "1"}
    assert names("*/1.*") == {"a/1.png": "a/1", "b/1.tif": "b/1"}
    assert names("a/**") == names("a/**/*.*") == {"a/1.png": "1", "a/deep/2.JPG": "deep/2"}
    (folder / "a" / "[1].png").touch()
    assert names("a/[1].png") == {"a/[1].png": "[1]"}  # a name that is there is no pattern


def test_each_file_is_listed_once(folder):
    assert names("a/1.png", "a", "a/*.png") == {"a/1.png": "1", "a/deep/2.JPG": "deep/2"}
    assert len(find(["a/1.png", "./a/1.png", str(folder / "a")], OUT)) == 2


def test_former_results_inside_of_the_searched_folder_are_no_inputs(folder):
    (folder / "a" / "out").mkdir()
    (folder / "a" / "out" / "1.png").touch()
    assert names("a", out=Path("a/out")) == {"a/1.png": "1", "a/deep/2.JPG": "deep/2"}


@pytest.mark.parametrize(
    ("words", "out", "message"),
    [
        (["none"], "out", "none: there is no such file or folder"),
        (["a**"], "out", "is no pattern|no file has such a name"),
        (["a", "*.png"], "out", r"\*\.png: no file has such a name"),
        (["c"], "out", "c: no image file found"),
        (["*/notes.txt"], "out", "no image file found"),
        (["a"], "a/../a", "--out: a is the folder of the images"),
    ],
)
def test_what_names_nothing_is_one_line(words, out, message):
    with pytest.raises(UserError, match=message) as error:
        find(words, Path(out))
    assert "\n" not in str(error.value)


def test_nothing_is_overwritten_silently(folder):
    (folder / "a" / "1.tif").touch()
    for name in ("a/1.png", "a/deep/2.JPG"):
        Image.new("L", (3, 2)).save(folder / name)
    files, written = find(["a/1.png", "a/1.tif", "b/1.tif", "a/deep/2.JPG"], OUT), []

    def write(gray, file, target):
        written.append((gray.shape, file, target))

    targets = [OUT / "1.png"] * 3 + [OUT / "2.png"]
    assert list(process(files, targets, write)) == [
        None,
        "a/1.tif: skipped: out/1.png is already what becomes of a/1.png",
        "b/1.tif: skipped: out/1.png is already what becomes of a/1.png",
        None,
    ]
    assert written == [((2, 3), files[place], targets[place]) for place in (0, 3)]
    (problem,) = process(files[:1], [Path("b/../a/1.png")], write)
    assert problem is not None and "would overwrite an input" in problem
    assert len(written) == 2
