"""Names from outside in messages: one line, nothing for a terminal to obey, not too long."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfscale.errors import LONGEST, UserError, one_line, redact, shown
from selfscale.progress import OneLine


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain: ä → 漢 x", "plain: ä → 漢 x"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b]0;title\x07\x1b[31mred\x9b2J", r"\x1b]0;title\x07\x1b[31mred\x9b2J"),
        ("right \u202eto left\u2028", r"right \u202eto left\u2028"),
        (os.fsdecode(b"\xff.png"), r"\udcff.png"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, line: str) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", (text,), None)
    assert one_line(text) == str(UserError(text)) == OneLine().format(record) == line


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    line = str(UserError(f"begin {'x' * 100_000} end"))
    assert len(line) <= LONGEST
    assert line.startswith("begin x")
    assert line.endswith("x end")


def test_values_without_end_are_shown_shortened() -> None:
    endless: list[object] = ["y" * 10_000]
    for _ in range(100):
        endless = [endless] * 100
    for value in (endless, 10**5000, {"a": [endless]}):
        assert len(shown(value)) < 500


@pytest.mark.parametrize(
    "setting",
    ["PYTHONIOENCODING=ascii", "TERM=dumb", "TERMINAL_WIDTH=wide", "COLUMNS=wide", "COLUMNS=1", "LC_ALL=xx"],
)
def test_settings_of_the_terminal(setting: str, tmp_path: Path) -> None:
    name, _, value = setting.partition("=")
    for words, code in ((["train", "--help"], 0), (["apply", "→\x1b[1m/x.keras", "→\n", "--out", "x"], 2)):
        command = [str(Path(sys.executable).with_name("selfscale")), *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {name: value}, capture_output=True, check=False
        )
        assert (done.returncode, b"\x1b" in done.stderr) == (code, False)
        assert len(done.stderr.splitlines()) == code // 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://me:se%40cret@host:5000/#/models.", "at http://host:5000/#/models."),
        ("'mysql+pymysql://me:a/b@c@host/db' fails", "'mysql+pymysql://host/db' fails"),
        ("https://token@host/x https://host/y?size=3", "https://host/x https://host/y?size=3"),
        ("postgresql://host/db?user=me&password=abc&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("https://host/a.tar?X-Amz-Signature=0af&b", "https://host/a.tar?X-Amz-Signature=***&b"),
        ("http://host:5000/a@champion, sobel@champion", "http://host:5000/a@champion, sobel@champion"),
    ],
)
def test_an_address_loses_its_password(text, shown):
    assert redact(text) == shown


def test_passwords_of_the_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:open/se%40same@host")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "swordfish")
    text = "https://me:open/se%40same@host refuses open/se@same and swordfish"
    assert redact(text) == "https://host refuses *** and ***"
