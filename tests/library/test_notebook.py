"""The notebook, cell by cell: it ends with a smaller network that is hardly worse on the test images."""

from __future__ import annotations

import json
import re

from workspaces import CHECKOUT


def test_digits(capsys):
    notebook = json.loads((CHECKOUT / "examples/digits.ipynb").read_text(encoding="utf-8"))
    scope: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), scope)
    told = capsys.readouterr().out
    (before, before_accuracy), (after, after_accuracy) = re.findall(
        r"^(?:before|after) +(\d+) \{'accuracy': ([\d.]+)", told, re.MULTILINE
    )
    assert int(after) < 0.7 * int(before)
    assert float(after_accuracy) > float(before_accuracy) - 0.05
