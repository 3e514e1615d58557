"""What stands for own files among DVC's dependencies changes when they do, and only then."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from selfscale.data_config import Data, Folder, Task
from selfscale.errors import UserError
from selfscale.pipeline.inputs import look
from selfscale.settings import Runs, Settings, Strategy

OUT = Path("inputs")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of photographs, one of wanted outputs and an operator, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("own_operators_g", None)  # of another test's folder
    for folder in ("photos", "wanted"):
        Path(folder).mkdir()
        for name in ("a.png", "b.png"):
            Path(folder, name).write_bytes(b"not looked into")
    Path("own_operators_g.py").write_text("def f(image): return image\n")
    return tmp_path


def settings(data: Data | None = None, **tasks: Task) -> Settings:
    tasks = tasks or {
        "own": Task(operator="own_operators_g:f", loss="mae"),
        "pairs": Task(targets="wanted", loss="mae"),
        "sobel": Task(operator="sobel", loss="mae"),
    }
    return Settings(
        runs=Runs(tasks=list(tasks), strategies=["random", "mine"], seeds=[0]),
        data=data or Data(source="folder", folder=Folder(path="photos")),
        tasks=tasks,
        strategies={"random": Strategy(select="random"), "mine": Strategy(select="own_operators_g:f")},
    )


def looked() -> dict[str, bytes]:
    look(settings(), OUT)
    return {path.stem: path.read_bytes() for path in OUT.rglob("*.json")}


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (lambda: None, set()),
        (lambda: Path("photos/c.png").write_bytes(b""), {"photographs"}),
        (lambda: Path("photos/a.png").unlink(), {"photographs"}),
        (lambda: Path("photos/note.txt").write_bytes(b""), set()),
        (lambda: Path("wanted/a.png").rename("wanted/c.png"), {"pairs"}),
        (lambda: Path("wanted/a.png").write_bytes(b"longer than it was"), {"pairs"}),
        (lambda: os.utime("wanted/a.png", (1, 1)), {"pairs"}),
        (
            lambda: Path("own_operators_g.py").write_text("def f(image): return image / 2\n"),
            {"own", "mine"},
        ),
        (lambda: Path("helper_of_own.py").write_text("scale = 2\n"), {"own", "mine"}),
    ],
    ids=range(9),
)
def test_it_tells_what_changed(change: Callable[[], None], changed: set[str]) -> None:
    before = looked()
    assert set(before) == {"photographs", "random", "mine", "own", "pairs", "sobel"}
    change()
    after = looked()
    assert {name for name in before if after[name] != before[name]} == changed


def test_moved_with_the_project_the_state_is_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = looked()
    moved = here.rename(here.with_name("moved"))
    monkeypatch.chdir(moved)
    after = looked()
    assert {name: after[name] for name in ("photographs", "pairs")} == {
        name: before[name] for name in ("photographs", "pairs")
    }


def test_a_task_that_is_gone_leaves_nothing() -> None:
    looked()
    look(settings(Data(), sobel=Task(operator="sobel", loss="mae")), OUT)
    assert {path.name for path in OUT.rglob("*.json")} == {
        "photographs.json",
        "mine.json",
        "random.json",
        "sobel.json",
    }


def test_a_missing_folder_is_named_and_what_was_there_stays() -> None:
    before = looked()
    with pytest.raises(UserError, match=r"^tasks\.gone\.targets: nowhere does not exist$"):
        look(settings(gone=Task(targets="nowhere", loss="mae")), OUT)
    assert {path.stem: path.read_bytes() for path in OUT.rglob("*.json")} == before
