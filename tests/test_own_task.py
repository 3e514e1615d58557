"""The worked examples of docs/own-task.md, as they stand there, and what DVC does when own files change."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import mlflow.tensorflow
import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML
from scipy import ndimage
from test_repro import Project, stages

from pages import blocks, change
from selfscale.cli import app as cli
from workspaces import CHECKOUT, contents, new_project, own_store

pytestmark = pytest.mark.pipeline

PAGE = CHECKOUT / "docs" / "own-task.md"
SIDE = 96
RUNS = {
    "runs.strategies": ["random"],
    "minimization.layers.tries": 1,
    "minimization.limits.decisions": 2,
    "data.size": SIDE,
}


@pytest.fixture(scope="module", autouse=True)
def no_server() -> Iterator[None]:
    with own_store():
        yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    new_project(tmp_path / "project", RUNS)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(sys, "path", list(sys.path))
    handler = signal.getsignal(signal.SIGTERM)
    yield tmp_path / "project"
    signal.signal(signal.SIGTERM, handler)


def follow(section: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Do what a section says, in the working directory; what its commands and scripts print."""
    printed = ""
    for block in blocks(PAGE, section):
        if block.language == "yaml":
            change(Path("params.yaml"), YAML(typ="safe").load(block.code))
        elif block.language == "bash":
            for line in block.code.splitlines():
                monkeypatch.setattr(sys, "argv", line.split())
                with pytest.raises(SystemExit) as ended:
                    cli.main()
                assert not ended.value.code, line
        elif "mlflow" in block.code:  # on a machine without this package and without the project's modules
            alone = 'import sys; sys.modules["selfscale"] = None\n' + block.code
            (Path.cwd().parent / "use.py").write_text(alone, encoding="utf-8")
            printed += ran([sys.executable, str(Path.cwd().parent / "use.py")])
        else:
            Path(block.file).write_text(block.code, encoding="utf-8")
            if block.file.startswith("make_"):
                printed += ran([sys.executable, block.file])
    return printed


def ran(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_result(project: Path, task: str) -> np.ndarray:
    """The result's test score is that of the registered network against these targets, which it returns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlruns/mlflow.db")
        champion = mlflow.tensorflow.load_model(f"models:/selfscale-{task}@champion")
    images = np.load(project / "data/prepared/test.npy") / np.float32(255)
    output = champion.predict(images, verbose=0)
    (result,) = json.loads((project / "reports/comparison.json").read_text())["results"].values()
    targets = np.load(project / f"data/targets/{task}/test.npy").astype("float32")
    assert result["task"] == task
    assert result["test"]["final"]["mae"] == pytest.approx(
        np.abs(output - targets).mean(dtype=float), rel=1e-4
    )
    assert result["macs_per_pixel"] <= result["macs_per_pixel_initial"]
    keras.saving.load_model(project / f"models/minimized/{task}-random-seed-0/compact.keras")
    return targets


def test_an_operator_of_ones_own(project, monkeypatch, capsys):
    assert follow("An operator of your own", monkeypatch) == "(1, 48, 64, 1)\n"
    assert "selfscale-emboss version 1: champion, the first one" in capsys.readouterr().out
    targets = check_result(project, "emboss")
    images = np.load(project / "data/prepared/test.npy") / 255
    kernel = np.array([[2, 1, 0], [1, 0, -1], [0, -1, -2]]) / 4
    for image, target in zip(images[..., 0], targets[..., 0], strict=True):
        expected = np.clip(0.5 + ndimage.correlate(image, kernel), 0, 1)  # strength 2
        np.testing.assert_allclose(target, expected, atol=5e-4)


def test_pairs_of_images(project, monkeypatch, capsys):
    follow("Pairs of images", monkeypatch)
    assert "selfscale-denoise version 1: champion, the first one" in capsys.readouterr().out
    targets = check_result(project, "denoise")
    manifest = json.loads((project / "data/prepared/manifest.json").read_text())
    names = [image["name"] for image in manifest["images"] if image["split"] == "test"]
    assert len(names) == len(targets) == 3
    for name, target in zip(names, targets, strict=True):
        clean = np.asarray(Image.open(project / "pairs/wanted" / name))
        top, left = ((side - SIDE) // 2 for side in clean.shape)
        expected = clean[top : top + SIDE, left : left + SIDE] / 255
        np.testing.assert_allclose(target[..., 0], expected, atol=5e-4)


@pytest.fixture
def repository(tmp_path: Path) -> Project:
    """A project of its own under Git and DVC, with this checkout's stages."""
    root = tmp_path / "project"
    for pattern in (
        ".dvc/config",
        ".dvc/.gitignore",
        ".dvcignore",
        ".gitignore",
        "dvc.yaml",
        "picks.json",
        "src/selfscale/**/*.py",
    ):
        for path in CHECKOUT.glob(pattern):
            copy = root / path.relative_to(CHECKOUT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    shutil.copy(CHECKOUT / "params.yaml", root)
    made = Project(root)
    made.run("git", "init", "--quiet")
    return made


def targets_made(repository: Project) -> set[str]:
    """The stages that ran for the targets to be up to date: no other has to."""
    return stages(repository.dvc("repro", "targets"))


def test_dvc_makes_targets_again_when_the_operator_or_a_file_of_pairs_changed(repository):
    for section in ("An operator of your own", "Pairs of images"):
        script, settings = blocks(PAGE, section)[:2]
        (repository.root / script.file).write_text(script.code)
        change(repository.root / "params.yaml", YAML(typ="safe").load(settings.code))
    change(repository.root / "params.yaml", {"runs": {"tasks": ["emboss", "denoise"]}})
    repository.run(sys.executable, "make_pairs.py")
    targets = {"targets@emboss", "targets@denoise"}
    assert targets_made(repository) == {"inputs", "prepare"} | targets
    before = contents(repository.root / "data/targets")
    operator = repository.root / "emboss.py"
    operator.write_text(operator.read_text().replace("/ 2, 0, 1)", "/ 4, 0, 1)"))
    assert targets_made(repository) == {"inputs", "targets@emboss"}
    after = contents(repository.root / "data/targets")
    assert {name for name in before if before[name] != after[name]} >= {"emboss/train.npy"}
    wanted = repository.root / "pairs/wanted/moon.png"
    Image.fromarray(255 - np.asarray(Image.open(wanted))).save(wanted)
    assert targets_made(repository) == {"inputs", "targets@denoise"}
    for folder in ("inputs", "wanted"):
        (repository.root / f"pairs/{folder}/moon.png").unlink()
    assert targets_made(repository) == {"inputs", "prepare"} | targets
    manifest = json.loads((repository.root / "data/prepared/manifest.json").read_text())
    assert len(manifest["images"]) == 10
