from __future__ import annotations

import importlib.util
import shutil
import sys
from contextlib import chdir
from pathlib import Path
from types import ModuleType

import pytest

from selfscale import files
from selfscale.errors import UserError
from selfscale.pipeline import train as pipeline
from selfscale.reporting.exhaustive import benchmark_path, frontier, means, read_benchmark
from selfscale.settings import Settings, load
from workspaces import CHECKOUT, change_params, own_store, trained_project


def network(
    widths: list[int], macs: float, validation: float | None, seed: int = 0, **others: object
) -> dict:
    return {
        "widths": widths,
        "seed": seed,
        "ended": "completed",
        "parameters": int(macs) + 1,
        "macs_per_pixel": macs,
        "validation": validation,
        "test": validation,
    } | others


def test_the_frontier_of_a_hand_made_case():
    networks = [
        network([2], 100, 0.9, seed=0),
        network([2], 100, 0.5, seed=1),  # on average 0.7: worse than the smaller [1]
        network([1], 50, 0.6, test=0.61),
        network([1], 50, 0.6, seed=1, test=0.63),
        network([], 25, 0.8),
        network([1, 1], 75, 0.6),  # no better than the smaller [1], and no worse
        network([3], 150, 0.4),
        network([1, 2], 150, 0.45),  # of the same size as [3]
        network([4], 200, None, ended="non-finite"),
    ]
    found = frontier(networks)
    assert [point["widths"] for point in found] == [[], [1], [1, 1], [3]]
    assert found[1]["test"] == pytest.approx(0.62)
    assert found[1]["seeds"] == 2


def test_seeds_in_which_a_network_died_are_counted_apart():
    networks = [network([2], 100, 0.5), network([2], 100, 0.9, seed=1, ended="dead")]
    (found,) = means(networks)
    assert (found["validation"], found["seeds"], found["failed"]) == (0.5, 1, 1)


@pytest.fixture(scope="module")
def exhaustive() -> ModuleType:
    spec = importlib.util.spec_from_file_location("exhaustive", CHECKOUT / "benchmarks" / "exhaustive.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["exhaustive"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path):
    folder = shutil.copytree(trained_project(), tmp_path / "project")
    with own_store(), chdir(folder):
        yield folder


GRID = {"seeds": [0], "depths": [0, 1], "widths": [2], "steps": 8, "workers": 1}


def settings() -> Settings:
    return load(Path("params.yaml"))


def test_a_killed_run_goes_on_where_it_was(exhaustive, project, monkeypatch):
    written, write = [], files.write_json

    def kill_at_third(path, content):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, "write_json", kill_at_third)
        exhaustive.run(settings(), "sobel", **GRID)
    assert written == ["first-session-widths-none-seed-0.json", "8-steps-widths-none-seed-0.json"]
    assert not benchmark_path("sobel").exists()

    trained, build = [], pipeline.new_network
    monkeypatch.setattr(
        pipeline,
        "new_network",
        lambda chosen, *rest: trained.append(chosen.network.widths) or build(chosen, *rest),
    )
    found = exhaustive.run(settings(), "sobel", **GRID)
    assert trained == [[2], [2]]
    assert files.read_json(benchmark_path("sobel"), "") == found
    first, equal = found["networks"].values()
    assert [one["widths"] for one in first] == [one["widths"] for one in equal] == [[], [2]]
    assert [one["macs_per_pixel"] for one in first] == [9, 36]  # kernels of 3 x 3
    assert [one["training_steps"] for one in equal] == [8, 8]
    table = exhaustive.table(found).splitlines()
    assert table[2].startswith("| none | 10 | 9 |")
    assert table[3].startswith("| 2 | 39 | 36 |")


def test_the_first_session_is_that_of_the_pipeline(exhaustive, project):
    """The network of the settings' own widths is the one that `selfscale train` made."""
    network = exhaustive.Network((3, 2), 0, None)
    found = exhaustive.train(settings(), "sobel", Path("state"), network)
    made = files.read_json(Path("models/trained/sobel-seed-0/training.json"), "train")
    assert found["test"] == made["test"]["mae"]
    assert (found["starts"], found["ended"], found["parameters"]) == (
        made["starts"],
        made["ended"],
        made["parameters"],
    )


def test_a_benchmark_of_other_settings_is_left_out(exhaustive, project):
    assert read_benchmark(settings(), "sobel") is None
    found = exhaustive.run(settings(), "sobel", **GRID | {"depths": [0]})
    assert read_benchmark(settings(), "sobel") == found
    change_params(project / "params.yaml", {"network.widths": [4]})
    assert read_benchmark(settings(), "sobel") == found
    change_params(project / "params.yaml", {"training.batch": 3})
    assert read_benchmark(settings(), "sobel") is None
    benchmark_path("sobel").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        read_benchmark(settings(), "sobel")


def test_steps_are_by_default_those_of_the_minimizations(exhaustive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="selfscale minimize sobel"):
        exhaustive.steps_of_minimizations("sobel")
    for name, steps in (
        ("sobel-random-seed-0", 100),
        ("sobel-cosine-seed-1", 201),
        ("canny-random-seed-0", 7),
    ):
        path = Path("models/minimized") / name / "result.json"
        files.write_json(path, {"training_steps": steps, "training_steps_initial": 1000})
    assert exhaustive.steps_of_minimizations("sobel") == 1150


@pytest.mark.parametrize("words", [["sobel", "--seeds", "-1"], ["sobel", "--widths", "0"], ["nowhere"]])
def test_bad_arguments_are_one_line_and_exit_code_2(exhaustive, monkeypatch, capsys, words):
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setattr(sys, "argv", ["exhaustive.py", *words])
    with pytest.raises(SystemExit) as ended:
        exhaustive.main()
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err.splitlines()[-1]
