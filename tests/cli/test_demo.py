"""`selfscale demo`: from nothing to a page, in a folder of its own."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from test_app import assert_one_line, command  # noqa: F401

from pages import merge
from selfscale.cli import demo
from selfscale.settings import Settings
from workspaces import TINY, own_store

# What is so small that the demo runs in seconds.
SMALL = {
    "data": {"size": 48},
    "network": {"widths": [2, 2], "kernel": 3},
    "training": {"first": {"steps": 40, "max_cycles": 1, "restarts": 9}},
    "minimization": {"removal": {"steps": TINY["minimization.removal.steps"]}, "layers": {"tries": 0}}
    | {"last_session_steps": 20, "limits": {"steps": 100}},
}


@pytest.fixture
def small(monkeypatch):
    settings = YAML(typ="safe").load(demo.SETTINGS)
    Settings.model_validate(settings)
    merge(settings, SMALL)
    monkeypatch.setattr(demo, "SETTINGS", json.dumps(settings))
    monkeypatch.setattr(webbrowser, "open", lambda address: pytest.fail(f"no terminal, but {address}"))
    with own_store():
        yield


@pytest.mark.pipeline
def test_it_ends_with_a_page(command, small, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    ended = command("demo", "--out", "shown", "--json")
    assert ended.code == 0, ended
    answer = json.loads(ended.out)
    assert Path(answer["folder"]) == tmp_path / "shown"
    assert [path.name for path in tmp_path.iterdir()] == ["shown"]
    page = Path(answer["page"]).read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 3
    result = answer["result"]
    assert result == json.loads(
        (tmp_path / "shown/models/minimized/sobel-cosine-seed-0/result.json").read_text()
    )
    assert result["macs_per_pixel"] <= result["macs_per_pixel_initial"]
    # The folder is a project: its other commands work there.
    monkeypatch.chdir(tmp_path / "shown")
    ended = command("curve", "sobel")
    assert ended.code == 0, ended


def test_a_folder_with_files_is_refused(command, small, tmp_path):  # noqa: F811
    (tmp_path / "mine.txt").touch()
    assert_one_line(command("demo", "--out", str(tmp_path)), "is not empty; name a new folder")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
