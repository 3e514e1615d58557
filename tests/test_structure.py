"""The rooms and their order: imports go down only, and `nn` and `search` are a library of their own."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "selfscale"
# From the ground up; a module imports from its own room and those before it.
ROOMS = ("", "nn", "search", "data", "tracking", "inference", "reporting", "library", "pipeline", "cli")
LIBRARY = ("nn", "search")
# What the library may import of the ground floor.
GROUND = {"config", "search_config", "decisions", "errors", "progress", "plugins", "keras_settings"}
FOREIGN = ("yaml", "ruamel", "mlflow", "dvc", "typer", "rich", "requests", "pooch", "sqlalchemy")
LONGEST_FILE, LONGEST_FUNCTION = 250, 50

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.stem != "__init__"
}


def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def room(module: str) -> str:
    return module.rpartition(".")[0]


def imported(module: str) -> Iterator[str]:
    """Modules of ours that a module imports anywhere in its text, without the package's name."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: imports are absolute"
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found = {name.removeprefix("selfscale.") for name in names if name.startswith("selfscale.")}
        yield from found & MODULES.keys()


def test_every_room_has_a_place_in_the_order():
    assert {room(module) for module in MODULES} == set(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module):
    allowed = ROOMS[: ROOMS.index(room(module)) + 1]
    assert [name for name in imported(module) if room(name) not in allowed] == []


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) in LIBRARY])
def test_the_library_imports_little_of_the_ground_floor(module):
    assert {name for name in imported(module) if not room(name)} <= GROUND


def loaded(code: str) -> set[str]:
    """All modules in a fresh process after some imports."""
    code += "\nimport sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_the_library_loads_nothing_of_files_stores_and_command_lines():
    """Also indirectly; what TensorFlow and its like load by themselves is not ours."""
    modules = [f"selfscale.{name}" for name in MODULES if room(name) in LIBRARY]
    ours = loaded(f"import {', '.join(modules)}")
    others = loaded("import tensorflow, keras, pydantic, numpy, scipy, psutil")
    roots = {name.partition(".")[0] for name in ours - others}
    assert roots & set(FOREIGN) == set()
    floor = {name.removeprefix("selfscale.") for name in ours if name.startswith("selfscale.")}
    assert {name for name in floor & MODULES.keys() if not room(name)} <= GROUND


def test_only_tracking_and_inference_import_mlflow():
    """Others go through their modules."""
    users = {
        room(module)
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [*(alias.name for alias in node.names), getattr(node, "module", None) or ""]
        if name.partition(".")[0] == "mlflow"
    }
    assert users <= {"tracking", "inference"}


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_are_short(module):
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE
    functions = [n for n in ast.walk(tree(module)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def test_files_of_tests_have_names_of_their_own():
    """Pytest imports them by their names alone, and collects only the first of two."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_the_command_line_starts_without_the_heavy_libraries():
    heavy = {"tensorflow", "keras", "mlflow", "skimage", "numpy"}
    assert loaded("import selfscale.cli.app") & heavy == set()
