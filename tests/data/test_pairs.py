"""Tasks whose targets are files: what belongs together, how it is cut and scaled, how mistakes are told."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfscale.cli import app as cli
from selfscale.data import pairs, targets
from selfscale.data.prepare import SPLITS, load_split, prepare
from selfscale.data.targets import make_targets
from selfscale.data_config import Data, Folder, Task
from selfscale.errors import UserError
from selfscale.files import read_json
from selfscale.paths import PREPARED, TARGETS, Training
from selfscale.pipeline import train as pipeline
from selfscale.settings import Runs, Settings, Strategy
from workspaces import own_store

SIZE = 24
NAMES = ["0.png", "deep/1.png", "deep/2.JPG", "3.tif", "4.bmp", "deep/er/5.v2.png", "6.png", "7.png"]
Save = Callable[..., None]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def fill(wanted: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs of several sizes and kinds, and wanted outputs of the same names as PNG, by name."""
    rng, made = np.random.default_rng(0), {}
    for number, name in enumerate(NAMES):
        gray = rng.integers(0, 256, (SIZE + number, SIZE + 2 * number + 3), dtype=np.uint8)
        save(Path("inputs") / name, gray)
        made[name] = wanted(gray)
        save((Path("wanted") / name).with_suffix(".png"), made[name])
    return made


def made_of(loss: str = "mae", workers: int = 1) -> dict:
    prepare(Data(source="folder", folder=Folder(path="inputs"), size=SIZE), Path("prepared"), workers=workers)
    return make_targets(Task(targets="wanted", loss=loss), Path("prepared"), Path("out"), workers)


def rows() -> list[tuple[str, np.ndarray]]:
    """Each image's name, and its targets, over all splits."""
    images = read_json(Path("prepared/manifest.json"), "prepare")["images"]
    found = [row for split in SPLITS for row in load_split(Path("prepared"), Path("out"), split).targets]
    return list(zip([image["name"] for image in images], found, strict=True))


def centre(pixels: np.ndarray) -> np.ndarray:
    top, left = ((side - SIZE) // 2 for side in pixels.shape)
    return pixels[top : top + SIZE, left : left + SIZE]


def deepened(gray: np.ndarray) -> np.ndarray:
    return gray.astype(np.uint16) * 200 + 77


@pytest.mark.parametrize("workers", [1, 2])
def test_wanted_outputs_are_cut_like_their_inputs_and_follow_them(here, workers):
    made = fill(deepened)
    manifest = made_of(workers=workers)
    assert (manifest["operator"], manifest["discrete"]) == (None, False)
    assert len(rows()) == len(NAMES)
    for name, row in rows():
        assert row.dtype == np.float16
        np.testing.assert_allclose(row[..., 0], centre(made[name]) / 65535, atol=2.5e-4)


def test_eight_bits_are_scaled_to_one(here):
    made = fill(lambda gray: 255 - gray)
    made_of()
    for name, row in rows():
        np.testing.assert_allclose(row[..., 0], centre(made[name]) / 255, atol=2.5e-4)


def test_eight_and_sixteen_bits_may_be_mixed(here):
    made = fill(lambda gray: 255 - gray)
    save(Path("wanted/0.png"), made["0.png"].astype(np.uint16) * 257)
    made_of()
    found = dict(rows())["0.png"]
    np.testing.assert_allclose(found[..., 0], centre(made["0.png"]) / 255, atol=2.5e-4)


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (100, 200)], ids=str)
def test_two_values_are_discrete(here, values):
    low, high = values
    made = fill(lambda gray: np.where(gray > 99, high, low).astype(np.uint8))
    assert made_of(loss="soft_f1")["discrete"]
    assert load_split(Path("prepared"), Path("out"), "train").discrete
    for name, row in rows():
        assert row.dtype == np.uint8
        np.testing.assert_array_equal(row[..., 0], centre(made[name]) == high)


def test_a_mask_of_one_bit_is_discrete(here):
    made = fill(lambda gray: gray > 99)
    assert made_of()["discrete"]
    for name, row in rows():
        np.testing.assert_array_equal(row[..., 0], centre(made[name]))


def test_soft_f1_needs_two_values(here):
    fill(deepened)
    with pytest.raises(UserError) as error:
        made_of(loss="soft_f1")
    assert str(error.value) == (
        "tasks.out.loss: soft_f1 needs wanted outputs of just two values, which those in wanted have not; "
        "use mae or mse"
    )
    assert not Path("out").exists()


def test_a_loss_that_was_changed_since_is_found_before_training(here):
    fill(deepened)
    made_of()
    Path("data").mkdir()
    Path("prepared").rename(PREPARED)
    TARGETS.mkdir()
    Path("out").rename(TARGETS / "own")
    settings = Settings(
        runs=Runs(tasks=["own"], strategies=["random"], seeds=[0]),
        tasks={"own": Task(targets="wanted", loss="soft_f1")},
        strategies={"random": Strategy(select="random")},
    )
    with (
        own_store(),
        pytest.raises(UserError, match=r"^tasks\.own\.loss: soft_f1 needs wanted outputs of just two values"),
    ):
        pipeline.train(settings, Training("own", 0))


def unlink(name: str) -> Save:
    return lambda: Path(name).unlink()


def put(name: str, *shape: int) -> Save:
    return lambda: save(Path(name), np.full(shape, 7, np.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            unlink("wanted/deep/2.png"),
            "tasks.out.targets: wanted has no wanted output for the input deep/2.JPG",
        ),
        (put("wanted/deep/8.png", 30, 30), "tasks.out.targets: wanted/deep/8.png has no input of that name"),
        (
            put("wanted/deep/2.png", 26, 30),
            "wanted/deep/2.png: has 30x26 pixels, but its input deep/2.JPG has 31x26; make them equal",
        ),
        (
            put("wanted/deep/2.bmp", 26, 31),
            "tasks.out.targets: wanted/deep/2.bmp and wanted/deep/2.png have the same name; keep one of them",
        ),
        (
            put("inputs/deep/2.png", 26, 31),
            "tasks.out.targets: inputs: deep/2.JPG and deep/2.png have the same name; keep one of them",
        ),
        (
            lambda: Path("wanted/6.png").write_bytes(b"no image"),
            "wanted/6.png: broken: not a PNG, JPEG, TIFF, BMP or WebP image that can be read",
        ),
        (lambda: Path("wanted").rename("gone"), "tasks.out.targets: wanted does not exist"),
    ],
    ids=range(7),
)
def test_a_mistake_is_one_line_that_names_the_file(here, change, message):
    fill(deepened)
    change()
    with pytest.raises(UserError) as error:
        made_of(workers=2 if message.startswith("wanted/") else 1)  # else it is told before there are workers
    assert str(error.value) == message
    assert not Path("out").exists()


def test_the_command_ends_with_one_line_and_code_2(here, monkeypatch, capsys):
    fill(deepened)
    Path("wanted/6.png").unlink()
    Path("params.yaml").write_text(
        "runs: {tasks: [own], strategies: [random], seeds: [0]}\n"
        f"data: {{source: folder, folder: {{path: inputs}}, size: {SIZE}}}\n"
        "tasks: {own: {targets: wanted, loss: mae}}\n"
        "strategies: {random: {select: random}}\n"
    )
    handler = signal.getsignal(signal.SIGTERM)
    codes = []
    for words in (["prepare"], ["targets", "own"]):
        monkeypatch.setattr(sys, "argv", ["selfscale", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        codes.append(ended.value.code or 0)
    signal.signal(signal.SIGTERM, handler)
    assert codes == [0, 2]
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: tasks.own.targets: wanted has no wanted output for the input 6.png"
    )
    assert not Path("data/targets").exists() or not any(Path("data/targets").glob("[!.]*"))


def test_what_is_skipped_is_skipped_with_its_partner(here):
    made = fill(deepened)
    put("inputs/small.png", SIZE - 1, SIZE)()
    put("wanted/small.png", SIZE - 1, SIZE)()
    Path("inputs/broken.png").write_bytes(b"")
    put("wanted/broken.png", 30, 30)()
    put("wanted/note.png", 1, 1)()
    Path("wanted/note.png").rename("wanted/note.txt")
    made_of()
    assert sorted(name for name, _ in rows()) == sorted(made)


def test_the_embedded_photographs_have_no_files_to_pair(here):
    prepare(Data(size=128), Path("prepared"), workers=2)
    put("wanted/a.png", 9, 9)()
    with pytest.raises(UserError, match=r"^tasks\.out\.targets: data\.source has to be folder; sample has"):
        make_targets(Task(targets="wanted", loss="mae"), Path("prepared"), Path("out"))


@pytest.mark.parametrize("changed", [False, True])
def test_cut_off_it_goes_on_unless_a_file_changed(here, monkeypatch, changed):
    made, cut, calls = fill(deepened), pairs.cut, []

    def stopping(pair: pairs.Pair, size: int) -> np.ndarray:
        calls.append(pair.name)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return cut(pair, size)

    monkeypatch.setattr(targets.pairs, "cut", stopping)
    with pytest.raises(KeyboardInterrupt):
        made_of()
    assert not Path("out").exists()
    if changed:
        made["6.png"] = made["6.png"] // 2
        save(Path("wanted/6.png"), made["6.png"])
        os.utime("wanted/6.png", (1, 1))
    calls[:] = ["done"] * 9
    made_of()
    assert len(calls) - 9 == (8 if changed else 4)
    for name, row in rows():
        np.testing.assert_allclose(row[..., 0], centre(made[name]) / 65535, atol=2.5e-4)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({}, "name an operator, a folder of wanted outputs as targets, or a problem; one of them is needed"),
        ({"operator": "sobel", "targets": "a"}, "name an operator, a folder of .*; not operator and targets"),
        ({"targets": "a", "arguments": {"b": 1}}, "arguments are those of an operator; targets have none"),
    ],
)
def test_a_task_has_one_teacher(task, message):
    with pytest.raises(ValueError, match=message):
        Task(**task, loss="mae")


@pytest.mark.parametrize("turned", ["input", "wanted"])
def test_a_pair_of_different_orientations_is_refused(here, turned):
    """Square images: which of the two was turned by the program that wrote it, nobody can know."""
    for number in range(4):
        gray = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
        for kind in ("inputs", "wanted"):
            save(Path(kind) / f"{number}.png", gray)
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = Path("inputs" if turned == "input" else "wanted")
    Image.fromarray(np.rot90(gray)).save(folder / "3.png", exif=exif)
    found = "orientation 1, but its input 3.png has 6" if turned == "input" else "orientation 6, but .* has 1"
    with pytest.raises(UserError, match=rf"wanted/3\.png: has the EXIF {found}; turn both upright"):
        made_of()
    Image.fromarray(np.rot90(gray)).save(Path("inputs/3.png"), exif=exif)
    Image.fromarray(np.rot90(gray)).save(Path("wanted/3.png"), exif=exif)
    made_of()
    pixels = {name: target[..., 0] for name, target in rows()}["3.png"]
    np.testing.assert_allclose(pixels, gray / 255, atol=1e-3)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("outside", [False, True])
def test_masks_of_a_split_without_a_single_one_are_refused(here, split, outside):
    rng = np.random.default_rng(0)
    for number in range(6):
        save(Path("inputs") / f"{number}.png", rng.integers(0, 256, (SIZE + 4, SIZE + 4), dtype=np.uint8))
        save(Path("wanted") / f"{number}.png", rng.integers(0, 2, (SIZE + 4, SIZE + 4), dtype=np.uint8) * 255)
    made_of("soft_f1")
    for image in read_json(Path("prepared/manifest.json"), "prepare")["images"]:
        if image["split"] == split:
            mask = np.zeros((SIZE + 4, SIZE + 4), np.uint8)
            mask[0, 0] = 255 * outside
            save(Path("wanted") / image["name"], mask)
    found = " in the crops, but not in the whole files" if outside else ";"
    with pytest.raises(UserError, match=f"tasks.out: every pixel of the {split} targets is 0{found}"):
        made_of("soft_f1")
