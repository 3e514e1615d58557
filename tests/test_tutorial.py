"""docs/tutorial.md from its settings to its exports, as it stands there, with settings that run in seconds.

Not done here: what makes the checkout and its environment (`git`, `cd`, `make`, `source`), `dvc`, and
`selfscale ui`, which waits for Ctrl-C (see test_ui.py). The page's settings have to be valid; then tiny ones
take the place of their numbers.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pages import CHECKOUT, blocks, change, commands
from selfscale.cli import app as cli
from workspaces import TINY, change_params, new_project, own_store, save_photographs

pytestmark = pytest.mark.pipeline

PAGE = CHECKOUT / "docs" / "tutorial.md"
ELSEWHERE = {"git", "cd", "make", "source", "dvc"}
# Whether there is another version to move to depends on what the networks learned.
MAY_REFUSE = {"promote", "rollback"}
TINY_RUN = {key: value for key, value in TINY.items() if not key.startswith("runs.")} | {
    "data.size": 40,
    "training.first.steps": 30,
    "training.first.max_cycles": 2,
    "minimization.limits.decisions": 3,
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project in a home folder with photographs."""
    handler = signal.getsignal(signal.SIGTERM)
    new_project(tmp_path / "project")
    save_photographs(tmp_path / "photographs")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "project")
    with own_store():
        yield tmp_path / "project"
    signal.signal(signal.SIGTERM, handler)


def test_the_tutorial(project, monkeypatch, capfd):
    done: list[str] = []
    for block in blocks(PAGE):
        if block.language == "yaml":
            change(Path("params.yaml"), YAML(typ="safe").load(block.code))
            cli.load(Path("params.yaml"))
            change_params(Path("params.yaml"), TINY_RUN)
        for words in commands(block) if block.language == "bash" else ():
            if words[0] in ELSEWHERE or words[1] == "ui":
                continue
            monkeypatch.setattr(sys, "argv", [str(Path(word).expanduser()) for word in words])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            if words[1] in MAY_REFUSE and ended.value.code == 2:
                assert "error: selfscale-sobel" in capfd.readouterr().err
            else:
                assert not ended.value.code, (words, capfd.readouterr().err)
            done.append(words[1])
    assert set(done) > {"prepare", "minimize", "compare", "pick", "register", "rollback", "apply", "export"}

    (_, result) = json.loads(Path("reports/comparison.json").read_text())["results"].values()
    assert result["macs_per_pixel"] <= result["macs_per_pixel_initial"]
    assert not json.loads(Path("picks.json").read_text())  # cleared in the end
    keras.saving.load_model("models/minimized/sobel-cosine-seed-0/compact.keras")
    photographs = sorted(path.stem for path in (project.parent / "photographs").iterdir())
    assert sorted(path.stem for path in Path("edges").iterdir()) == photographs
    with Image.open(f"edges/{photographs[0]}.png") as edges:
        assert (edges.mode, edges.size) == ("L", (40, 40))
    assert Path("sobel.tflite").stat().st_size > 1000
