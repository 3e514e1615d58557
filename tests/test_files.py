from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfscale import files
from selfscale.errors import UserError
from selfscale.files import map_array, new_array, new_folder
from selfscale.nn.fcn import build


def test_the_same_model_is_the_same_bytes(tmp_path):
    model = build([2], kernel=3)
    files.save_model(model, tmp_path / "a" / "model.keras")
    time.sleep(1.1)  # Keras stamps the time, in seconds
    files.save_model(model, tmp_path / "b" / "model.keras")
    assert files.sha256(tmp_path / "a" / "model.keras") == files.sha256(tmp_path / "b" / "model.keras")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["model.keras"]
    images = np.random.default_rng(0).random((1, 9, 9, 1), dtype=np.float32)
    loaded = files.load_model(tmp_path / "a" / "model.keras", "train")
    np.testing.assert_array_equal(loaded(images), model(images))


@pytest.mark.parametrize("read", [files.load_model, files.read_json])
def test_a_missing_or_damaged_file_names_the_stage_to_run(tmp_path, read):
    path = tmp_path / "file.keras"
    for state in ("missing", "damaged"):
        with pytest.raises(UserError, match=rf"file.keras: is {state}; run `selfscale train sobel`"):
            read(path, "train sobel")
        path.write_text("{")


def test_a_failed_write_leaves_the_former_file(tmp_path):
    path = tmp_path / "file.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert files.read_json(path, "train") == {"a": 1}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "data" / "out"
    with new_folder(out) as folder:
        (folder / "a").write_text("1")
        assert not out.exists()
    assert names(out.parent) == ["out"]
    assert (out / "a").read_text() == "1"


def test_folder_takes_the_place_of_the_former_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("")
    with new_folder(out) as folder:
        (folder / "new").write_text("")
    assert names(tmp_path) == ["out"]
    assert names(out) == ["new"]


def test_an_error_leaves_everything_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("")
    with pytest.raises(KeyError), new_folder(out) as folder:
        (folder / "new").write_text("")
        raise KeyError
    assert names(tmp_path) == ["out"]
    assert names(out) == ["old"]


def test_what_a_killed_process_left_is_deleted(tmp_path: Path) -> None:
    for left in (".out.partial", ".out.former"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "half").write_text("")
    with new_folder(tmp_path / "out") as folder:
        assert names(folder) == []
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_errors_of_the_disk_are_one_line(tmp_path: Path, number: int) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError) as error, new_folder(out):
        raise OSError(number, os.strerror(number))
    assert str(error.value) == f"{out}: cannot be written: {os.strerror(number)}; nothing was kept"
    assert names(tmp_path) == []


def test_other_errors_of_the_system_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError), new_folder(tmp_path / "out"):
        raise TimeoutError


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with (
        pytest.raises(UserError, match="a file is in the place of this folder"),
        new_folder(tmp_path / "out"),
    ):
        pass
    with pytest.raises(UserError, match="cannot be written"), new_folder(tmp_path / "out" / "below"):
        pass
    assert (tmp_path / "out").read_text() == "mine"


def test_another_process_at_the_same_folder(tmp_path: Path) -> None:
    with (
        new_folder(tmp_path / "out"),
        pytest.raises(UserError, match="another process is writing it"),
        new_folder(tmp_path / "out"),
    ):
        pass


def test_many_processes_at_the_same_folder_take_turns_or_are_told(tmp_path: Path) -> None:
    """Each counts on in a file; a count is lost if two are ever in the block at once."""
    (tmp_path / "count").write_text("0")
    code = f"""
from pathlib import Path
from selfscale.errors import UserError
from selfscale.files import new_folder
count, done = Path({str(tmp_path / "count")!r}), 0
while done < 50:
    try:
        with new_folder(count.with_name("out")):
            count.write_text(str(int(count.read_text()) + 1))
    except UserError:
        continue
    done += 1
"""
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in running] == [0] * 3
    assert (tmp_path / "count").read_text() == "150"
    assert names(tmp_path) == ["count", "out"]


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
def test_array_written_row_by_row(tmp_path: Path, dtype: type) -> None:
    rows = np.arange(24, dtype=dtype).reshape(3, 4, 2, 1)
    with new_array(tmp_path / "a.npy", dtype, rows.shape) as file:
        for row in rows:
            file.write(row.tobytes())
    mapped = map_array(tmp_path / "a.npy")
    assert isinstance(mapped, np.memmap)
    assert mapped.dtype == dtype
    np.testing.assert_array_equal(mapped, rows)


def test_arrays_that_cannot_be_mapped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.npy: does not exist"):
        map_array(tmp_path / "a.npy")
    for content in (b"", b"rubbish", b"\x93NUMPY\x01\x00"):
        (tmp_path / "a.npy").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.npy: not a whole array"):
            map_array(tmp_path / "a.npy")
    with new_array(tmp_path / "a.npy", np.uint8, (1000, 10)):
        pass
    with pytest.raises(UserError, match=r"a\.npy: not a whole array"):
        map_array(tmp_path / "a.npy")


def test_pictures_and_tables_that_are_cut_off(tmp_path: Path) -> None:
    files.write_csv(tmp_path / "a.csv", ("step", "loss"), [(20, 0.5), (40, 0.25)])
    Image.new("L", (40, 30), 7).save(tmp_path / "a.png")
    assert files.read_png(tmp_path / "a.png", "compare") == (tmp_path / "a.png").read_bytes()
    for name, read in (("a.csv", files.read_csv), ("a.png", files.read_png)):
        path = tmp_path / name
        whole = path.read_bytes()
        end = 4 if name == "a.png" else 0  # a checksum of nothing
        for length in range(len(whole) - end):
            path.write_bytes(whole[:length])
            if whole[:length].endswith(b"\n") and name == "a.csv" and length > 10:
                continue  # a whole line less: a shorter table
            with pytest.raises(UserError, match=r"a\.\w+: is .*; run `selfscale compare` again"):
                read(path, "compare")
