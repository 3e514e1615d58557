"""Help and usage errors answer at once: they import no heavy module (never timed, that would be chance)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from forks import COMMANDS, fork
from selfscale import __version__
from workspaces import CHECKOUT, change_params

HEAVY = (
    *("tensorflow", "keras", "mlflow", "scipy", "pandas", "sklearn", "matplotlib", "matplotlib.pyplot"),
    *("joblib", "PIL", "requests", "sqlalchemy", "pooch", "dvc", "ray", "psutil", "numpy"),
    "skimage.filters.edges",  # `skimage` itself only imports what is asked for
)
RUNS = """
import sys
from selfscale.cli import app as cli

heavy, *sys.argv = sys.argv[1:]
try:
    cli.main()
finally:
    print("imported:", *set(heavy.split()) & set(sys.modules))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copy(CHECKOUT / "params.yaml", tmp_path)).parent


def start(folder: Path, *words: str) -> tuple[int, list[str], list[str], set[str]]:
    """Exit code, lines of stdout and stderr, and the heavy modules that were imported."""
    ended = fork(COMMANDS, folder, RUNS, " ".join(HEAVY), "selfscale", *words)
    *lines, imported = ended.out.splitlines()
    return ended.code, lines, ended.err.splitlines(), set(imported.split()[1:])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--help"],
        ["minimize", "--help"],
        ["apply", "--help"],
        ["export", "--help"],
        ["visualize", "--help"],
    ],
    ids=" ".join,
)
def test_help(project, words):
    code, out, err, imported = start(project, *words)
    assert (code, err, imported) == (0, [], set())
    assert "Usage: " in "".join(out)


def test_version_is_shown_and_nothing_else_is_done(project):
    assert start(project, "--version", "train", "sobel") == (0, [f"selfscale {__version__}"], [], set())


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["trian"], "No such command 'trian'"),
        (["worth"], "Missing argument 'TASK'"),
        (["train", "sobell"], "task: 'sobell' is unknown; did you mean 'sobel'?"),
        (["train", "sobel", "more"], "(more) (see `selfscale train --help`)"),
        (["train", "sobel", "--sede", "1"], "No such option: --sede"),
        (["train", "sobel", "--seed", "x"], "Invalid value for '--seed'"),
        (["train", "sobel", "--seed", "-1"], "Invalid value for '--seed'"),
        (
            ["pick", "sobel", "--max-macs", "nan"],
            "Invalid value for '--max-macs': nan is not in",
        ),
        (["pick", "sobel", "--min-score", "inf"], "Invalid value for '--min-score': inf is not in"),
        (["pick", "sobel", "--max-ms", "-1"], "Invalid value for '--max-ms': -1 is not in the range"),
        (["pick", "sobel", "--max-ms", "1e13"], "Invalid value for '--max-ms': 1e+13 is not in the range"),
        (["apply", "m.keras"], "Missing argument 'PATHS'"),
        (["apply", "m.keras", "a.png"], "Missing option '--out'"),
        (["apply", "m.keras", "a.png", "--out", "params.yaml"], "'params.yaml' is a file"),
        (["export", "m.keras", "--to", "torch", "--out", "a"], "'torch' is not one of"),
        (["visualize", "m.keras", "a.png", "--out", "o", "--task", "x"], "task: 'x' is unknown"),
        (["ui", "--port", "70000"], "Invalid value for '--port'"),
        (["minimize", "sobel", "--strategy", "cosin"], "strategy: 'cosin' is unknown"),
        (["prepare", "--params", "."], "'.' is a directory"),
        (["prepare", "--params", "none.yaml"], "none.yaml: there is no such file"),
        (["targets", "sobel", "--params", "none.yaml"], "none.yaml: there is no such file"),
        (["train", "sobel", "--params", "none.yaml"], "none.yaml: there is no such file"),
        (["minimize", "sobel", "--params", "none.yaml"], "none.yaml: there is no such file"),
        (["worth", "sobel", "--params", "none.yaml"], "none.yaml: there is no such file"),
        (["baseline", "sobel", "--params", "none.yaml"], "none.yaml: there is no such file"),
        (["compare", "--params", "none.yaml"], "none.yaml: there is no such file"),
        (["register", "--params", "none.yaml"], "none.yaml: there is no such file"),
        (["inputs", "--params", "none.yaml"], "none.yaml: there is no such file"),
        (["promote", "sobell"], "task: 'sobell' is unknown; did you mean 'sobel'?"),
        (["promote", "sobel", "--version", "0"], "Invalid value for '--version'"),
        (["rollback"], "Missing argument 'TASK'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words(project, words, part):
    code, out, err, imported = start(project, *words)
    assert (code, out, len(err), imported) == (2, [], 1, set()), err
    assert err[0].startswith("error: ")
    assert part.lower() in err[0].lower()


@pytest.mark.parametrize(
    ("changes", "part", "allowed"),
    [
        ({"network": {"width": [5]}}, "network: 'width' is unknown", set()),
        ({"training.batch": "8"}, "training.batch", set()),
        ({"execution.workers": 0}, "execution.workers", set()),
        (
            {"tasks.canny": {"targets": "x", "operator": "canny", "loss": "mae"}},
            "tasks.canny: name an",
            set(),
        ),
        ({"tasks.canny": {"loss": "mae"}}, "tasks.canny: name an operator, a folder", set()),
        ({"registry": {"rule": "smalest"}}, "registry.rule: 'smalest' is unknown; did you mean", set()),
        ({"tasks.canny.arguments": {"sigm": 1.0}}, "tasks.canny.arguments: 'sigm'", set()),
        ({"strategies.cosine.arguments": {"over": "x"}}, "strategies.cosine.arguments.over", {"numpy"}),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_wrong_settings(project, changes, part, allowed):
    change_params(project / "params.yaml", changes)
    code, out, err, imported = start(project, "train", "sobel")
    assert (code, out, len(err)) == (2, [], 1), err
    assert part in err[0]
    assert imported <= allowed


def test_settings_that_are_no_yaml(project):
    (project / "params.yaml").write_text("runs: [")
    code, out, err, imported = start(project, "train", "sobel")
    assert (code, out, len(err), imported) == (2, [], 1, set())
    assert "params.yaml: is not valid YAML" in err[0]


def test_tensorflow_comes_without_a_word_and_without_what_no_command_uses(project):
    code, out, err, imported = start(project, "train", "sobel")
    assert (code, out, len(err)) == (2, [], 1), err
    assert "run `selfscale prepare` first" in err[0]
    assert {"tensorflow", "keras"} <= imported
    assert not imported & {"sklearn", "matplotlib.pyplot"}
