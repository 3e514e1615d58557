from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from selfscale.data import prepare as dataset
from selfscale.data.cropping import centre_crop
from selfscale.data.prepare import SPLITS, Reading, Stored, load_split, prepare, read, split_photographs
from selfscale.data.sources import Photograph
from selfscale.data_config import Data, Folder, Shares
from selfscale.errors import UserError
from selfscale.files import write_json

SIZE = 24


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(8):
        pixels = rng.integers(0, 256, (SIZE + number, SIZE + 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("deep" if number % 2 else "") / f"{number}.png")
    return folder


def settings_for(photos: Path, **more: Any) -> Data:
    more.setdefault("split_seed", 0)
    return Data(source="folder", folder=Folder(path=str(photos)), size=SIZE, **more)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_prepared_folder(photos: Path, tmp_path: Path) -> None:
    manifest = prepare(settings_for(photos), tmp_path / "out", workers=1)
    assert sorted(contents(tmp_path / "out")) == ["manifest.json", "test.npy", "train.npy", "validation.npy"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    assert (manifest["source"], manifest["size"], manifest["skipped"]) == ("folder", SIZE, [])
    assert {split: manifest["counts"][split]["photographs"] for split in SPLITS} == {
        "train": 4,
        "validation": 2,
        "test": 2,
    }
    for split in SPLITS:
        images = np.load(tmp_path / "out" / f"{split}.npy", mmap_mode="r")
        entries = [entry for entry in manifest["images"] if entry["split"] == split]
        assert (images.dtype, images.shape) == (np.uint8, (len(entries), SIZE, SIZE, 1))
        for image, entry in zip(images, entries, strict=True):
            gray = np.asarray(Image.open(photos / entry["name"]))
            assert (entry["height"], entry["width"]) == gray.shape
            top, left = (gray.shape[0] - SIZE) // 2, (gray.shape[1] - SIZE) // 2
            np.testing.assert_array_equal(image[..., 0], gray[top : top + SIZE, left : left + SIZE])
            assert entry["sha256"] == hashlib.sha256(image.tobytes()).hexdigest()


def test_equal_whatever_the_workers_and_the_place(photos: Path, tmp_path: Path) -> None:
    prepare(settings_for(photos), tmp_path / "one", workers=1)
    photos.rename(tmp_path / "moved")
    prepare(settings_for(tmp_path / "moved"), tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert str(tmp_path).encode() not in contents(tmp_path / "one")["manifest.json"]


def test_the_seed_and_the_pixels_make_the_fingerprint(photos: Path, tmp_path: Path) -> None:
    def fingerprint(**more: Any) -> str:
        return str(prepare(settings_for(photos, **more), tmp_path / "out", workers=1)["fingerprint"])

    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint(split_seed=1) != first
    Image.fromarray(np.full((SIZE, SIZE), 7, np.uint8)).save(photos / "0.png")
    assert fingerprint() != first


def test_skipped_photographs_are_listed_with_reasons(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"no image")
    whole = (photos / "0.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "twin.png").write_bytes(whole)
    Image.new("L", (SIZE, SIZE - 1)).save(photos / "small.bmp")
    manifest = prepare(settings_for(photos), tmp_path / "out", workers=1)
    reasons = {skipped["name"]: skipped["reason"] for skipped in manifest["skipped"]}
    assert manifest["skipped_count"] == 4
    assert reasons.pop("cut.png").startswith("broken: ")
    assert reasons == {
        "broken.jpg": "broken: not a PNG, JPEG, TIFF, BMP or WebP image that can be read",
        "small.bmp": f"too small: {SIZE}x{SIZE - 1}",
        "twin.png": "the same pixels as 0.png",
    }
    assert sum(counts["photographs"] for counts in manifest["counts"].values()) == 8


def test_a_file_that_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    reading, pixels = read(Photograph("gone.png", tmp_path / "gone.png"), SIZE, centre_crop)
    assert (reading.crops, pixels) == ((), [])
    assert reading.reason == "unreadable: No such file or directory"


def test_sample_splits_by_photograph(tmp_path: Path) -> None:
    manifest = prepare(Data(), tmp_path / "out", workers=1)
    assert manifest["skipped"] == []
    splits: dict[str, set[str]] = {}
    for entry in manifest["images"]:
        splits.setdefault(entry["name"], set()).add(entry["split"])
    assert len(splits) == 19
    assert all(len(split) == 1 for split in splits.values())
    targets_for(tmp_path / "out", tmp_path / "targets")
    for name in SPLITS:
        names = [entry["name"] for entry in manifest["images"] if entry["split"] == name]
        of = load_split(tmp_path / "out", tmp_path / "targets", name).photograph
        assert (np.equal.outer(of, of) == np.equal.outer(names, names)).all()
    names = [entry["name"] for entry in manifest["images"]]
    assert max(map(names.count, names)) <= 8
    assert {entry["scale"] for entry in manifest["images"]} == {1, 1.5, 2}
    assert sum(counts["images"] for counts in manifest["counts"].values()) == len(manifest["images"]) >= 80


def test_too_few_usable_photographs(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        prepare(settings_for(photos).model_copy(update={"size": SIZE + 6}), tmp_path / "out", workers=1)
    assert str(error.value) == (
        "data.source: folder has 0 usable photographs, but train, validation and test need one each "
        "(skipped 8: 0.png: too small: 27x24)"
    )
    assert not (tmp_path / "out").exists()


def test_a_full_disk_keeps_what_was_there(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(settings_for(photos), tmp_path / "out", workers=1)
    before = contents(tmp_path / "out")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset, "_write", full)
    with pytest.raises(UserError, match="out: cannot be written: No space left on device"):
        prepare(settings_for(photos, split_seed=1), tmp_path / "out", workers=1)
    assert contents(tmp_path / "out") == before
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "out"}


def prepare_and_stop(photos: Path, out: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C when so many photographs are decoded."""
    decode, left = dataset.gray_and_orientation, after

    def stopping(content: bytes) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return decode(content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dataset, "gray_and_orientation", stopping)
        prepare(settings_for(photos), out, workers=1)
    assert not out.exists()


def decoded(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Prepare; how many photographs were decoded for it."""
    decode, contents = dataset.gray_and_orientation, []
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "gray_and_orientation", lambda content: contents.append(1) or decode(content))
        prepare(settings_for(photos), out, workers=1)
    return len(contents)


def test_cut_off_it_goes_on_after_the_last_finished_shard(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(settings_for(photos), tmp_path / "whole", workers=1)
    out = tmp_path / "out"
    prepare_and_stop(photos, out, 3, monkeypatch)
    prepare_and_stop(photos, out, 2, monkeypatch)
    assert decoded(photos, out, monkeypatch) == 8 - 3 - 2
    assert contents(out) == contents(tmp_path / "whole")
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("change", ["photograph", "size"])
def test_cut_off_and_changed_it_starts_anew(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    prepare_and_stop(photos, tmp_path / "out", 5, monkeypatch)
    if change == "photograph":
        Image.fromarray(np.full((SIZE, SIZE), 7, np.uint8)).save(photos / "0.png")
    else:
        (photos / "0.png").unlink()
    expected = len(list(photos.rglob("*.png")))
    assert decoded(photos, tmp_path / "out", monkeypatch) == expected
    assert not (tmp_path / ".out.shards").exists()


def test_killed_with_its_workers_it_goes_on(photos: Path, tmp_path: Path) -> None:
    """Once a shard is finished, a worker kills the process that it works for."""
    code = """
import os, signal, sys
from pathlib import Path
from selfscale.data import cropping, sources
from selfscale.data.prepare import prepare
from selfscale.data_config import Data, Folder

out = Path(sys.argv[2])

def killing(gray, size):
    if list(out.parent.glob(".out.shards/*/*.json")):
        os.kill(os.getppid(), signal.SIGKILL)
    return cropping.centre_crop(gray, size)

sources.SOURCES["folder"] = sources.Source(sources.folder, killing)
if __name__ == "__main__":
    settings = Data(source="folder", folder=Folder(path=sys.argv[1]), size=24, split_seed=0)
    prepare(settings, out, workers=2)
"""
    (tmp_path / "killing.py").write_text(code)
    words = [sys.executable, str(tmp_path / "killing.py"), str(photos), str(tmp_path / "out")]
    assert subprocess.run(words, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert list(tmp_path.glob(".out.shards/*/*.json"))
    prepare(settings_for(photos), tmp_path / "out", workers=2)
    prepare(settings_for(photos), tmp_path / "whole", workers=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@given(st.integers(3, 200), st.floats(0.01, 0.98), st.floats(0.01, 0.99), st.integers(0, 5))
def test_split_shares(count: int, train: float, part: float, seed: int) -> None:
    validation = (1 - train) * part
    shares = Shares(train=train, validation=validation, test=1 - train - validation)
    usable = [Stored(Reading(str(number)), Path(), 0) for number in range(count)]
    parts = split_photographs(usable, shares, seed)
    assert parts == split_photographs(usable, shares, seed)
    assert sorted(stored for part in parts.values() for stored in part) == sorted(usable)
    for name, members in parts.items():
        assert members
        assert abs(len(members) - count * getattr(shares, name)) < 2 or len(members) == 1


def targets_for(prepared: Path, targets: Path, shape: tuple[int, ...] | None = None) -> None:
    targets.mkdir()
    for split in SPLITS:
        images = np.load(prepared / f"{split}.npy")
        np.save(targets / f"{split}.npy", np.zeros(shape or images.shape, np.float16))
    fingerprint = json.loads((prepared / "manifest.json").read_text())["fingerprint"]
    write_json(targets / "manifest.json", {"images": fingerprint, "discrete": False})


def test_load_split(photos: Path, tmp_path: Path) -> None:
    prepared, targets = tmp_path / "out", tmp_path / "sobel"
    prepare(settings_for(photos), prepared, workers=1)
    targets_for(prepared, targets)
    split = load_split(prepared, targets, "validation")
    assert isinstance(split.images, np.memmap) and isinstance(split.targets, np.memmap)
    assert split.images.shape == split.targets.shape == (2, SIZE, SIZE, 1)
    prepare(settings_for(photos, split_seed=1), prepared, workers=1)
    with pytest.raises(
        UserError, match=r"made from other images than .*out holds; run `selfscale targets sobel` again"
    ):
        load_split(prepared, targets, "validation")


def test_load_split_that_is_not_there(photos: Path, tmp_path: Path) -> None:
    prepared, targets = tmp_path / "out", tmp_path / "sobel"
    with pytest.raises(UserError, match="run `selfscale prepare` first"):
        load_split(prepared, targets, "train")
    prepare(settings_for(photos), prepared, workers=1)
    with pytest.raises(UserError, match="run `selfscale targets sobel` first"):
        load_split(prepared, targets, "train")
    targets_for(prepared, targets, shape=(2, 5, 5, 1))
    with pytest.raises(UserError, match="made from other images"):
        load_split(prepared, targets, "test")
    (targets / "train.npy").unlink()
    with pytest.raises(UserError, match=r"train\.npy: does not exist"):
        load_split(prepared, targets, "train")
