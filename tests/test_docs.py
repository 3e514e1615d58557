"""Whether the pages can be followed: every block of code in them is checked or run.

Run: the tutorial, from its settings to its exports (test_tutorial.py); docs/own-task.md (test_own_task.py);
docs/own-problem.md (test_own_problem.py); what loads or asks the registered network (test_serving.py); the
strategies (here). Only parsed, against the options that there are: all other `selfscale`, `dvc` and `mlflow`
commands. Of `make`, the target has to be there, of `pip install` the extra, of `python` the file.
Programs of others (`TAKEN`) are taken as they are.
"""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import keras
import numpy as np
import pytest
import typer
from dvc.cli import DvcParserError
from dvc.cli import parse_args as parse_dvc
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort
from ruamel.yaml import YAML

from pages import CHECKOUT, PAGES, Block, blocks, commands, merge
from selfscale.cli import app as cli
from selfscale.settings import Settings

BLOCKS = [block for page in PAGES for block in blocks(page)]
TAKEN = {"git", "cd", "source", "curl", "ray", "nvidia-smi", "tar", "export", "cat", "pytest"}
WRONG = (cli.UsageError, click.UsageError)  # Typer's own Click, and MLflow's
SELFSCALE = typer.main.get_command(cli.app)


def of(*languages: str) -> Any:
    found = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", found, ids=str)


def parse(command: Any, words: list[str]) -> None:
    """Raises Click's UsageError for an unknown command, option or value, or a missing argument."""
    name, *rest = words
    context = command.make_context(name, rest)
    if hasattr(command, "resolve_command") and (rest := [*context._protected_args, *context.args]):
        _, found, options = command.resolve_command(context, rest)
        parse(found, [str(found.name), *options])


def check(words: list[str]) -> None:
    program = Path(words[0]).name
    match program:
        case "selfscale":
            parse(SELFSCALE, words)
        case "mlflow":
            from mlflow.cli import cli as mlflow

            parse(mlflow, words)
        case "dvc":
            parse_dvc(words[1:])
        case "make":
            rules = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
            for word in words[1:]:
                assert "=" in word or re.search(rf"^{word}:", rules, re.MULTILINE), word
        case "pip":
            extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
            for named in re.findall(r"\[(\w+)\]", " ".join(words)):
                assert named in extras["project"]["optional-dependencies"]
        case "python":
            assert words[1].startswith("-") or (CHECKOUT / words[1]).exists() or words[1] in named_files()
        case _:
            assert program in TAKEN | {"pre-commit"}, f"{program}: is not checked"


def named_files() -> set[str]:
    """The Python files that the pages tell to write."""
    return {block.file for block in BLOCKS if block.language == "python"}


def test_every_language_is_checked():
    assert {block.language for block in BLOCKS} <= {"bash", "python", "yaml", "text", "mermaid", "json"}


@of("bash")
def test_commands_exist_with_their_options(block: Block):
    for words in commands(block):
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):  # a variable for one command
            words = words[1:]
        try:
            check(words)
        except WRONG as error:
            pytest.fail(f"{' '.join(words)}: {error.format_message()}")


@pytest.mark.parametrize(
    "line",
    [
        "selfscale minimise sobel",
        "selfscale minimize sobel --sed 1",
        "selfscale pick sobel --max-macs many",
        "selfscale promote",
        "selfscale export a.keras --to png --out a.png",
        "mlflow models serve --model m",
        "dvc exp rnu",
        "make reprod",
        "pip install -e '.[cuda]'",
        "frobnicate",
    ],
)
def test_mistakes_are_found(line: str):
    (words,) = commands(Block("", 0, "bash", line))
    with pytest.raises((*WRONG, AssertionError, SystemExit, DvcParserError)):
        check(words)


@of("yaml")
def test_fragments_of_settings_pass_the_schema(block: Block):
    yaml = YAML(typ="safe", pure=True)
    settings = yaml.load((CHECKOUT / "params.yaml").read_text(encoding="utf-8"))
    merge(settings, yaml.load(block.code))
    Settings.model_validate(settings)


@of("python")
def test_python_compiles_and_imports_what_there_is(block: Block):
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_exist(page: Path):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for line in re.findall(r"`selfscale ([a-z][^`]*)`", text):
        command = SELFSCALE.commands[line.split()[0]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[\w-]+", line)) <= known | {"--help"}, line


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            there = page.parent / path if path else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def test_the_readme_is_read_in_minutes():
    assert len((CHECKOUT / "README.md").read_text(encoding="utf-8").split()) <= 800


def site(docs: Path, out: Path) -> None:
    """Build the site as `make docs` does; raises Abort for a dead link, or a page that is in no menu."""
    config = load_config(str(CHECKOUT / "mkdocs.yml"), strict=True, docs_dir=str(docs), site_dir=str(out))
    build(config)


def test_the_site_is_built_without_a_warning(tmp_path):
    site(CHECKOUT / "docs", tmp_path)
    assert {path.stem for path in PAGES[2:]} - {"index"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("page", "text"),
    [("use.md", "[dead](nowhere.md)"), ("use.md", "[dead](registry.md#nowhere)"), ("new.md", "# In no menu")],
)
def test_what_is_wrong_with_the_site_is_found(tmp_path, page, text):
    docs = shutil.copytree(CHECKOUT / "docs", tmp_path / "docs")
    with (docs / page).open("a", encoding="utf-8") as file:
        file.write(f"\n{text}\n")
    with pytest.raises(Abort):
        site(docs, tmp_path / "site")


def save_larger_than_its_task(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).normal(size=(1000, 4)).astype("float32")
    labels = (images[:, 0] > 0).astype("int64")
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Dense(2, activation="softmax")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, epochs=5, verbose=0)
    model.save(folder / "model.keras")


@pytest.mark.pipeline
def test_the_readme_minimizes_a_model(tmp_path):
    """Its ten lines, as they stand there."""
    (code,) = (block.code for block in blocks(CHECKOUT / "README.md") if block.language == "python")
    assert len([line for line in code.splitlines() if line]) <= 10
    save_larger_than_its_task(tmp_path)
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "accepted" in done.stdout
    models = [keras.saving.load_model(tmp_path / name) for name in ("small.keras", "model.keras")]
    assert models[0].count_params() < models[1].count_params()


def test_the_strategies_of_the_page_answer_a_number_for_each_candidate():
    names: dict[str, Any] = {}
    for block in blocks(CHECKOUT / "docs" / "strategies.md"):
        if block.language == "python":
            exec(block.code, names)
    even, uneven = np.full(10, 0.5), np.eye(10)[0]
    subject = SimpleNamespace(
        candidates=[(0, 0), (0, 1)],
        weights=lambda layer: np.stack([uneven, even]),
        costs=np.array([3.0, 1.0]),
    )
    assert np.argmax(names["evenness"](subject, power=0.5)) == 1
    assert np.argmax(names["cheapest"](subject)) == 1
