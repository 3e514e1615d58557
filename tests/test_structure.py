"""The rules that keep the parts apart: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "selfscale"
CORE = (
    *("events", "network", "switches", "losses", "evaluation", "batches", "feeding", "training"),
    *("snapshot", "probe"),
    *(
        "selection",
        "acceptance",
        "patience",
        "proposals",
        "trial",
        "layer_trials",
        "filter_trials",
        "attempt",
        "shrinking",
        "alterations",
        "layers",
        "redundancy",
        "growth",
        "growth_selection",
        "growth_trials",
    ),
    *("minimization", "compaction", "records", "worth"),
)
STORE = ("store", "tracking", "registry", "champions", "fetching", "delivery", "outbox", "monitor", "ui")


def imported(module: str) -> set[str]:
    """Names of all modules that a module imports anywhere in its text; ours without the package's name."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module == "selfscale"):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").removeprefix("selfscale."))
    return found


def reached(module: str) -> set[str]:
    """All modules that a module imports, directly or through modules of ours."""
    todo, seen = [module], set()
    while todo:
        for name in imported(todo.pop()):
            if name not in seen:
                seen.add(name)
                if (PACKAGE / f"{name}.py").exists():
                    todo.append(name)
    return seen


@pytest.mark.parametrize("module", CORE)
def test_the_core_knows_nothing_of_tracking_pipeline_or_command_line(module):
    roots = {name.partition(".")[0] for name in reached(module)}
    assert not roots & {"mlflow", "dvc", "typer", "click", "cli", "pipeline", "workspace", "report", *STORE}


@pytest.mark.parametrize("module", CORE)
def test_the_core_reports_events_and_shows_nothing(module):
    assert not {name.partition(".")[0] for name in imported(module)} & {"rich", "display", "watching"}


def test_only_the_store_modules_import_mlflow():
    users = {
        p.stem for p in PACKAGE.glob("*.py") if any(n.partition(".")[0] == "mlflow" for n in imported(p.stem))
    }
    assert users <= set(STORE)


def test_the_command_line_starts_without_the_heavy_libraries():
    heavy = "{'tensorflow', 'keras', 'mlflow', 'skimage', 'numpy'}"
    code = f"import sys, selfscale.cli; print(*{heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
