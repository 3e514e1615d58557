"""The notebook of examples/, cell by cell, in fewer steps: a smaller network that is hardly worse."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from pages import CHECKOUT
from stores import python


@pytest.mark.pipeline
def test_digits(tmp_path):
    (notebook,) = (CHECKOUT / "examples").glob("*.ipynb")
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert '"steps": 1200' in code
    code = code.replace('"steps": 1200', '"steps": 480')
    done = subprocess.run(python(code), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (before, before_accuracy), (after, after_accuracy) = re.findall(
        r"^(?:before|after) +(\d+) \{'accuracy': ([\d.]+)", done.stdout, re.MULTILINE
    )
    assert int(after) < 0.7 * int(before)
    assert float(after_accuracy) > float(before_accuracy) - 0.05
