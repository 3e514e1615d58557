"""What the user sees of the command line: help, and one line with exit code 2 for what can be put right."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image
from typer.testing import CliRunner

from selfscale.cli import app as cli
from selfscale.paths import PREPARED, TARGETS, Job
from selfscale.pipeline import minimize as minimizing
from selfscale.pipeline import train as pipeline
from selfscale.tracking.store import open_store
from stores import runs
from workspaces import (
    CHECKOUT,
    JOB,
    OWN_PHOTOGRAPHS,
    change_params,
    contents,
    own_store,
    save_photographs,
    trained_project,
)

COMMANDS = [
    *("inputs", "prepare", "targets", "train", "minimize", "compare"),
    *("register", "promote", "rollback", "ui"),
]


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture(scope="module", autouse=True)
def no_server() -> Iterator[None]:
    with own_store():
        yield


@pytest.fixture
def command(monkeypatch, capsys) -> Iterator[Command]:
    """`selfscale ...` in this process, through its entry point."""

    def run(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["selfscale", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Ended(ended.value.code or 0, *capsys.readouterr())

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    """The working directory, with nothing but the project's settings."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copy(CHECKOUT / "params.yaml", tmp_path)).parent


@pytest.fixture
def trained(tmp_path, monkeypatch) -> Path:
    """The working directory, with a trained network."""
    folder = shutil.copytree(trained_project(), tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


def assert_one_line(ended: Ended, *parts: str) -> None:
    assert (ended.code, ended.out) == (2, ""), ended
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line


def test_help_lists_the_commands(command):
    ended = command("--help")
    assert ended.code == 0
    assert all(f" {name} " in ended.out for name in COMMANDS)


def test_help_shows_each_command_in_a_panel_in_the_order_of_use(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    help_text = command("--help").out
    order = [
        line for panel, names in cli.PANELS.items() for line in (f"─ {panel} ", *(f"│ {n} " for n in names))
    ]
    places = [help_text.index(line) for line in order]
    assert places == sorted(places)
    defined = [path.read_text() for path in Path(cli.__file__).parent.glob("*.py")]
    assert sum(text.count("ommand()\ndef ") for text in defined) == sum(map(len, cli.PANELS.values()))


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name):
    result = CliRunner().invoke(cli.app, [name, "--help"])
    assert result.exit_code == 0
    assert f"selfscale {name}" in result.output.replace("root", "selfscale")
    assert "--params" in result.output or name == "ui"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["train", "sobell"], ["task: 'sobell' is unknown", "did you mean 'sobel'?"]),
        (["targets", "x"], ["task: 'x' is unknown; valid: canny, otsu, sobel"]),
        (["minimize", "sobel", "--strategy", "cosin"], ["strategy: 'cosin' is unknown", "'cosine'"]),
        (["prepare", "--params", "none.yaml"], ["none.yaml: there is no such file", "--params"]),
        (["targets", "sobel"], ["data/prepared/manifest.json: is missing; run `selfscale prepare` first"]),
        (["train", "sobel"], ["run `selfscale prepare` first"]),
        (["minimize", "sobel"], ["training.json: is missing; run `selfscale train sobel --seed 0` first"]),
        (["compare"], ["run `selfscale minimize sobel --strategy random --seed 0` first"]),
        (["register"], ["reports/comparison.json: is missing; run `selfscale compare` first"]),
    ],
    ids=lambda value: " ".join(value) if "prepare" not in value else None,
)
def test_wrong_words_and_missing_inputs(command, empty, words, parts):
    assert_one_line(command(*words), *parts)
    assert {path.name for path in empty.iterdir()} <= {"params.yaml", ".selfscale"}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"tasks.canny.arguments": {"sigm": 1.0}}, ["tasks.canny.arguments: 'sigm'", "'sigma'"]),
        ({"tasks.sobel.operator": "sobl"}, ["tasks.sobel.operator: 'sobl' is unknown", "'sobel'"]),
        ({"tasks.sobel.arguments": {"combine": "x"}}, ["tasks.sobel.arguments.combine", "'magnitude'"]),
        ({"tasks.sobel.loss": "soft_f1"}, ["tasks.sobel.loss: soft_f1 needs a discrete operator"]),
        ({"tasks.sobel.loss": "mea"}, ["tasks.sobel.loss: 'mea' is unknown", "valid: mae, mse"]),
        ({"strategies.random.select": "rnd"}, ["strategies.random.select: 'rnd' is unknown", "'random'"]),
        ({"strategies.cosine.arguments": {"over": "x"}}, ["strategies.cosine.arguments.over", "'mean'"]),
        ({"runs.strategies": ["cosin"]}, ["runs.strategies: 'cosin' is unknown", "'cosine'"]),
        ({"network": {"width": [5]}}, ["network: 'width' is unknown", "'widths'"]),
        ({"training.batch": "8"}, ["training.batch", "not '8'"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_settings(command, empty, changes, parts):
    change_params(empty / "params.yaml", changes)
    assert_one_line(command("prepare"), "params.yaml: ", *parts)
    assert [path.name for path in empty.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (None, ["data.folder.path: name the folder"]),
        ("absent", ["data.folder.path: absent does not exist"]),
        ("nothing", ["data.folder.path: nothing has no image file"]),
        ("useless", ["folder has 0 usable photographs", "tiny.png: too small: 3x3"]),
    ],
    ids=str,
)
def test_a_folder_without_photographs(command, empty, path, parts):
    (empty / "nothing").mkdir()
    (empty / "useless").mkdir()
    Image.new("L", (3, 3)).save(empty / "useless" / "tiny.png")
    change_params(empty / "params.yaml", {"data.source": "folder", "data.folder.path": path})
    assert_one_line(command("prepare"), *parts)
    assert not (empty / PREPARED).exists()


def test_photographs_that_are_left_out_are_listed(command, empty, caplog):
    save_photographs(empty / "photos", count=4)
    (empty / "photos" / "broken.jpg").write_bytes(b"")
    change_params(empty / "params.yaml", OWN_PHOTOGRAPHS)
    with caplog.at_level("INFO"):
        assert command("prepare").code == 0
    assert "skipped broken.jpg: broken: " in caplog.text
    assert "train: 2 images of 2 photographs" in caplog.text


@pytest.mark.parametrize(
    ("damaged", "words", "part"),
    [
        (
            JOB.training.output / "initial.keras",
            ["minimize", "sobel"],
            "run `selfscale train sobel --seed 0` again",
        ),
        (
            JOB.training.output / "training.json",
            ["minimize", "sobel"],
            "run `selfscale train sobel --seed 0` again",
        ),
        (PREPARED / "train.npy", ["train", "sobel"], "not a whole array; delete it and make it again"),
        (TARGETS / "sobel" / "manifest.json", ["train", "sobel"], "run `selfscale targets sobel` again"),
        (Path("params.yaml"), ["train", "sobel"], "params.yaml: "),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_file_that_was_cut_off(command, trained, damaged, words, part):
    whole = (trained / damaged).read_bytes()
    (trained / damaged).write_bytes(whole[: len(whole) // 2])
    assert_one_line(command(*words), damaged.name, part)
    assert not (trained / JOB.output).exists()


@pytest.mark.parametrize("content", [None, b"PK no snapshot"])
def test_a_wrong_snapshot(command, trained, content):
    if content:
        (trained / "some.npz").write_bytes(content)
    assert_one_line(command("minimize", "sobel", "--snapshot", "some.npz"), "some.npz: ")


@pytest.mark.parametrize("words", [["sync"], ["ui"]], ids=" ".join)
def test_a_server_that_does_not_answer(command, trained, monkeypatch, words):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert_one_line(command(*words), "MLFLOW_TRACKING_URI=http://127.0.0.1:9: no server answers")


@pytest.mark.parametrize("words", [["train", "sobel"], ["minimize", "sobel"]], ids=" ".join)
def test_a_store_that_cannot_be_opened_is_found_before_the_work(command, trained, monkeypatch, words):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://store")
    monkeypatch.setattr(pipeline, "first_session", None)
    monkeypatch.setattr(minimizing, "minimize", None)
    before = contents(trained / "models")
    assert_one_line(command(*words), "MLFLOW_TRACKING_URI=nonsense://store: MLflow cannot open this store")
    assert contents(trained / "models") == before


def test_training_goes_on_without_the_server_and_its_run_is_there_later(command, trained, monkeypatch):
    before = contents(trained / "models")
    for folder in ("models", "mlruns"):
        shutil.rmtree(trained / folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code = command("train", "sobel").code
    assert (code, contents(trained / "models")) == (0, before)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert command("sync")[:2] == (0, "1 run created or completed\n")


@pytest.mark.parametrize("rate", [1e3, 1e9])
def test_a_network_that_never_lives_is_reported(command, trained, rate):
    shutil.rmtree(trained / "models")
    change_params(trained / "params.yaml", {"training.learning_rate": rate, "training.first.restarts": 1})
    ended = command("train", "sobel")
    assert_one_line(ended, "sobel, seed 0: the network is ", "after each of 2 starts; lower training.learn")
    assert [path.name for path in (trained / "models").rglob("*.*")] == ["run.json"]  # of the failed run


def full(path: Path) -> None:
    """A file on a full disk: writing to it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/dev/full")


WRITTEN = ("compact.keras", "removed_filters.npy", "decisions.json", "curve.csv", "example.png")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["train", "sobel"], [JOB.training.output / "training.json"]),
        (
            ["minimize", "sobel"],
            [JOB.output / name for name in WRITTEN],
        ),
    ],
    ids=["train", "minimize"],
)
def test_a_full_disk(command, trained, words, files):
    """At one file after another: what was trained before goes on."""
    change_params(trained / "params.yaml", {"minimization.limits.decisions": 1})
    for file in files:
        temporary = trained / file.with_name(f".{file.name}.tmp")
        full(temporary)
        assert_one_line(command(*words), "No space left on device")
        temporary.unlink(missing_ok=True)
        assert not (trained / JOB.output / "result.json").exists()
        assert "RUNNING" not in {run.info.status for run in runs(open_store(trained), "minimization")}


def test_jobs_are_chosen_by_words_or_by_the_first_of_each_list(command, empty, monkeypatch):
    jobs: list[Job] = []
    monkeypatch.setattr(minimizing, "run_minimization", lambda settings, job, **more: jobs.append(job))
    monkeypatch.setattr(
        pipeline, "train", lambda settings, found, **more: jobs.append(Job(found.task, "", found.seed))
    )
    change_params(empty / "params.yaml", {"runs.strategies": ["cosine", "random"], "runs.seeds": [7, 8]})
    (empty / "params.yaml").rename(empty / "other.yaml")
    for words in (["train", "canny"], ["minimize", "canny"]):
        assert command(*words, "--params", "other.yaml").code == 0
    chosen = ["minimize", "sobel", "--strategy", "random", "--seed", "8", "--params", "other.yaml"]
    assert command(*chosen).code == 0
    assert jobs == [Job("canny", "", 7), Job("canny", "cosine", 7), Job("sobel", "random", 8)]


def test_ctrl_c_is_no_traceback(command, empty, monkeypatch):
    def interrupted(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(minimizing, "run_minimization", interrupted)
    ended = command("minimize", "sobel")
    assert ended.code == 130
    assert len(ended.err.splitlines()) <= 1
