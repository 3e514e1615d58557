"""The stages on a Ray cluster: nothing is lost or counted twice when one of its nodes is."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from selfscale.config import Execution
from selfscale.errors import UserError
from selfscale.pipeline import cluster, repro
from selfscale.pipeline.minimize import run_minimization
from selfscale.settings import load
from selfscale.tracking.store import open_store
from stores import runs
from workspaces import change_params, contents, own_store, trained_project

ray = cluster.import_ray()
RUNS = {
    "runs.tasks": ["sobel"],
    "runs.strategies": ["random", "sequential", "cosine"],
    "minimization.limits.decisions": 3,
}
DIES_WITHIN = 60.0  # seconds until the cluster has noticed that a node does not answer


@pytest.fixture(scope="module")
def two_nodes() -> Iterator:
    """Two nodes of one CPU each on this machine, beside the driver's, which has none."""
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True, connect=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def minimize(folder: Path, *, on_cluster: bool = False) -> None:
    """All minimizations, one after another or on the cluster."""
    with chdir(folder):
        settings = load(Path("params.yaml"))
        items = repro.every(settings, "minimize")
        if on_cluster:
            repro.on_cluster(settings, items)
            return
        for work in items.values():
            run_minimization(settings, work)


def wait_for_nodes(count: int) -> None:
    deadline = time.monotonic() + DIES_WITHIN
    while len(alive := [node for node in ray.nodes() if node["Alive"]]) != count:
        assert time.monotonic() < deadline, alive
        time.sleep(0.5)


def test_a_comparison_survives_the_loss_of_a_node(two_nodes, tmp_path, monkeypatch):
    made, nodes = two_nodes
    told: list[tuple[str, ...]] = []
    monkeypatch.setattr(repro, "run", lambda *words: told.append(words))  # DVC is not there
    folder, expected = tmp_path / "project", tmp_path / "expected"
    with own_store():
        for project in (folder, expected):
            shutil.copytree(trained_project(), project)
            change_params(project / "params.yaml", RUNS)
        minimize(expected)

        change_params(folder / "params.yaml", {"execution.engine": "ray", "execution.workers": None})
        decided = folder / ".selfscale" / "minimizations"

        def lose_a_node() -> None:
            while len(list(decided.glob("*/state.npz"))) < 2:  # until both nodes are at it
                time.sleep(0.05)
            made.remove_node(nodes[0], allow_graceful=False)

        loss = threading.Thread(target=lose_a_node)
        loss.start()
        minimize(folder, on_cluster=True)
        loss.join()
        wait_for_nodes(2)  # the driver's and one other
        assert [words[:2] for words in told] == [("commit", "--force")]
        assert contents(folder / "models") == contents(expected / "models")
        client, reference = open_store(folder), open_store(expected)
        for kind in ("minimization", "decision", "session"):
            found = runs(client, kind)
            assert {run.info.status for run in found} == {"FINISHED"}
            names = sorted((run.data.tags["strategy"], run.info.run_name) for run in found)
            again = sorted((run.data.tags["strategy"], run.info.run_name) for run in runs(reference, kind))
            assert names == again


def test_without_ray_it_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"execution\.engine: ray is not installed; `pip install"):
        list(cluster.cluster_map(abs, [1], Execution(engine="ray")))
