"""Faults that need a project: random kills, random settings, two processes that register at once."""

from __future__ import annotations

import copy
import json
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from contextlib import chdir
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st
from ruamel.yaml import YAML

from selfscale.cli.loading import load
from selfscale.errors import LONGEST, UserError
from selfscale.nn.fcn import build
from selfscale.tracking.store import open_store
from stores import new_store, python, runs
from workspaces import (
    CHECKOUT,
    JOB,
    contents,
    minimize,
    minimize_and_die,
    minimized_project,
    own_store,
    trained_project,
)

PLACES = (
    "selfscale.nn.trainer:Trainer._advance",
    "selfscale.tracking.runs:StoredRun._write",
    "selfscale.tracking.runs:StoredRun._show",
    "selfscale.tracking.runs:StoredRun._end",
    "selfscale.pipeline.resume:save",
    "selfscale.files:write_bytes",
    "selfscale.files:write_json",
)
REGISTERS = """
import sys
from pathlib import Path
from selfscale.settings import Registry
from selfscale.tracking.registry import register
from selfscale.tracking.store import open_store
from stores import RESULT

register(open_store(Path(sys.argv[1])), "sobel", Path(sys.argv[2]), RESULT, "", None, Registry())
"""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def check_kill(rng: np.random.Generator) -> str:
    """A minimization that is killed anywhere ends, run again, with the same bytes and each run once."""
    with tempfile.TemporaryDirectory() as name, own_store():
        folder = shutil.copytree(trained_project(), Path(name, "project"))
        place, call = str(rng.choice(PLACES)), int(rng.integers(1, 30))
        code = minimize_and_die(folder, place, call, signal.SIGKILL)
        if code not in (0, -signal.SIGKILL):
            return f"{place} call {call}: exit code {code}"
        if not code:
            return "too late"  # there are fewer calls
        minimize(folder)
        if contents(folder / JOB.output) != contents(minimized_project() / JOB.output):
            return f"{place} call {call}: other bytes"
        if (found := count_of_runs(folder)) != count_of_runs(minimized_project()):
            return f"{place} call {call}: {found} runs"
    return "killed"


def count_of_runs(folder: Path) -> dict[str, int]:
    """How many finished and other runs there are of each kind."""
    found = runs(open_store(folder))
    return dict(sorted(Counter(f"{run.data.tags['kind']} {run.info.status}" for run in found).items()))


def check_register() -> str:
    """Two processes that register the same file at once make one version."""
    with tempfile.TemporaryDirectory() as name, own_store():
        root = Path(name, "root")
        client, model = new_store(root), Path(name, "model.keras")
        build([2, 1], kernel=3, deviation=0.3).save(model)
        both = [
            subprocess.Popen(python(REGISTERS, root, model), cwd=Path(__file__).parent.parent) for _ in "ab"
        ]
        codes = [process.wait() for process in both]
        versions = client.search_model_versions("name = 'selfscale-sobel'")
    return (
        "once" if (codes, len(versions)) == ([0, 0], 1) else f"exit codes {codes}, {len(versions)} versions"
    )


def check_settings(seed: int, examples: int) -> Counter[str]:
    """Outcomes of settings in which one value is another one, of any kind."""
    whole, outcomes = YAML(typ="safe").load(CHECKOUT / "params.yaml"), Counter[str]()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.sampled_from(keys(whole)), VALUES)
    def each(key: tuple[str, ...], value: Any) -> None:
        changed = copy.deepcopy(whole)
        section = changed
        for name in key[:-1]:
            section = section[name]
        section[key[-1]] = value
        Path("params.yaml").write_text(json.dumps(changed))
        outcomes[outcome(Path("params.yaml"))] += 1

    with tempfile.TemporaryDirectory() as name, chdir(name):
        Path("params.yaml").write_text(json.dumps(whole))
        assert outcome(Path("params.yaml")) == "read"
        each()
    return outcomes


def keys(section: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in section.items():
        found += [(*above, key), *(keys(value, (*above, key)) if isinstance(value, dict) else [])]
    return found


def outcome(path: Path) -> str:
    try:
        load(path)
    except UserError as error:
        whole = "\n" not in str(error) and len(str(error)) <= LONGEST + 100
        return "refused" if whole else f"more than one line: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"
