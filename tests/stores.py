"""What the tests of the MLflow modules share: quick new stores, and records to log."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from selfscale import files
from selfscale.decisions import DecisionRecord, Filter, SessionRecord
from selfscale.search.ablation import AblationRecord, Movement, ScoreChange, Successor
from selfscale.tracking.store import Client, open_store

RESULT: dict[str, Any] = {
    "task": "sobel",
    "strategy": "random",
    "seed": 3,
    "loss": "mae",
    "filters_initial": [5, 5],
    "filters_kept": [2, 1],
    "parameters_initial": 871,
    "parameters": 130,
    "macs_per_pixel_initial": 850.0,
    "macs_per_pixel": 125.0,
    "validation": {"initial": {"mae": 0.011, "uiqi": 0.9}, "final": {"mae": 0.012, "uiqi": 0.8}},
    "test": {"initial": {"mae": 0.013, "uiqi": 0.9}, "final": {"mae": 0.012, "uiqi": 0.8}},
    "test_interval": {
        "initial": {"low": 0.0111, "high": 0.0159},
        "final": {"low": 0.0101, "high": 0.0149},
    },
    "decisions": 2,
    "accepted": 1,
    "reverted": 1,
    "training_steps": 80,
    "targets": "0123456789abcdef" * 4,
}


# What `worth` measured of one filter.
MEASURED: dict[str, Any] = {
    "test": "disabled",
    "filter": [0, 3],
    "reference": 0.1,
    "score_before_training": 0.4,
    "score": 0.2,
    "difference": {"value": 1.0, "low": 0.9, "high": 1.1},
    "against_baseline": {"value": 0.5, "low": 0.4, "high": None},
    "movements": [{"filter": [1, 0], "distance": 0.25}],
    "successor": {"filter": [0, 1], "similarity": 0.8, "before": 0.3},
    "relearned": None,
    "session": {"steps": 40, "losses": [[40, None]], "scores": [[40, 0.2]], "ended": "completed"},
}
ABLATION: dict[str, Any] = {
    **{"task": "sobel", "seed": 3, "session_steps": 40, "loss": "mae"},
    **{"validation_images": 12, "confidence": 0.95, "reference": 0.1},
    "baseline": MEASURED | {"test": "baseline", "filter": None, "against_baseline": None, "successor": None},
    "tests": [MEASURED],
}


@functools.cache
def template() -> Path:
    """A migrated, empty database: making one takes seconds."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    open_store(folder)
    return folder / "mlruns" / "mlflow.db"


def new_store(root: Path) -> Client:
    database = root / "mlruns" / "mlflow.db"
    database.parent.mkdir(parents=True)
    shutil.copy(template(), database)
    return open_store(root)


def python(code: str, *arguments: Path | str) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def record(
    number: int,
    *,
    accepted: bool = True,
    filters: tuple[Filter, ...] = (Filter(1, 3),),
    alteration: str | None = None,
    steps: int = 40,
    seconds: float = 1.5,
) -> DecisionRecord:
    session = SessionRecord(
        steps=steps,
        losses=((20, 0.5), (40, 0.25)),
        scores=((20, 0.3), (40, 0.2)),
        ended="completed",
        seconds=seconds,
    )
    return DecisionRecord(
        number=number,
        alteration=alteration or ("disable" if filters else "train"),
        filters=filters,
        selection_score=0.75,
        started_from=number - 1,
        limit=0.21,
        score_before_training=0.4,
        score=0.2 if accepted else 0.3,
        relative_loss=0.05 if accepted else 0.5,
        bound=0.08 if accepted else 0.7,
        metrics={"mae": 0.2, "uiqi": 0.8},
        photograph_sums=((1.0, 4.0), (0.6, 4.0)),
        accepted=accepted,
        reason="within the limit" if accepted else "above the limit",
        filters_kept=(5, 5 - number),
        parameters=900 - number,
        macs_per_pixel=800.0 - number,
        session=session,
    )


def worth_record(test: str, filter: Filter | None = None, ended: str = "completed") -> AblationRecord:
    """One test of a filter, or the baseline session."""
    return AblationRecord(
        test=test,
        filter=filter,
        reference=0.2,
        score_before_training=0.4,
        score=0.25,
        difference=ScoreChange(0.25, 0.125, 0.5),
        against_baseline=ScoreChange(0.3, 0.2, 0.4) if filter else None,
        movements=tuple(Movement(Filter(*pair), 0.1 * n) for n, pair in enumerate([(0, 0), (1, 0), (2, 0)])),
        successor=Successor(Filter(0, 1), 0.75, 0.5) if filter == Filter(0, 0) else None,
        relearned=0.625 if test == "reinitialized" else None,
        session=SessionRecord(8, ((4, 0.5), (8, 0.3)), ((4, 0.3), (8, 0.25)), ended, seconds=1.5),
    )


STARTED = 1_000_000_000.0  # of every execution, in seconds since 1970
KEY = "0123456789abcdef" * 2
TRIALS = (record(1), record(2, accepted=False), record(3, filters=()))


def write_minimization(
    folder: Path, trials: Sequence[DecisionRecord] = TRIALS, *, finished: bool = True, **about: Any
) -> Path:
    """A minimization's record, as the pipeline writes it; `about` goes into its `run.json`."""
    initial = {"score": 0.19, "filters_kept": [5, 5], "parameters": 900, "macs_per_pixel": 800.0}
    run = {"kind": "minimization", "task": "sobel", "strategy": "random", "seed": 3, "initial": initial}
    run |= {"settings": {"network": {"widths": [5, 5]}}, "dataset": {"name": "sample", "digest": "9f" * 32}}
    files.write_json(folder / "run.json", run | about)
    for number in (0, *(trial.number for trial in trials if trial.accepted)):
        draw(folder / f"pictures/{number:03}/1.png", number)
    for trial in trials:
        files.write_bytes(folder / f"sessions/{trial.number:03}.npz", b"weights %i" % trial.number)
    contents = [asdict(trial) for trial in trials]
    for content in contents:
        del content["session"]["seconds"]
    files.write_json(folder / "decisions.json", contents)
    if finished:
        files.write_bytes(folder / "compact.keras", b"network")
        draw(folder / "network.png", len(trials))
        files.write_json(folder / "result.json", RESULT)
    return folder


def write_training(folder: Path, kind: str = "training") -> Path:
    """A training's or a baseline's record."""
    run = {"kind": kind, "task": "sobel", "seed": 3, "settings": {"training": {"batch": 8}}}
    files.write_json(folder / "run.json", run)
    files.write_csv(folder / "curve.csv", ("step", "loss", "score"), [(20, 0.5, 0.3), (40, 0.25, 0.2)])
    scores = {"mae": 0.01}
    result = {"task": "sobel", "seed": 3, "filters": [5, 5], "ended": "stagnated", "training_steps": 40}
    result |= {"parameters": 871, "macs_per_pixel": 850.0, "validation": scores, "test": scores}
    interval = {"low": 0.009, "high": 0.011}
    result["test_interval"] = interval
    more: dict[str, Any] = {}
    if kind == "baseline":
        both = {"initial": scores, "final": scores}
        more = {"kept": "initial", "loss": "mae", "filters_kept": [5, 5], "decisions": 0, "steps": 40}
        more |= {"validation": both, "test": both}
        more["test_interval"] = {"initial": interval, "final": interval}
    files.write_json(folder / ("result.json" if more else "training.json"), result | more)
    return folder


def draw(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("P", (300, 400), colour).save(path)


def write_clock(
    path: Path, record: Path | None = None, *, count: int = len(TRIALS), key: str = KEY, **more: Any
) -> Path:
    """The clock of an execution, over if `record` is what it left."""
    done = {str(n): {"at": STARTED + 10 * n, "seconds": 1.5} for n in range(1, count + 1)}
    clock: dict[str, Any] = {"key": key, "started": STARTED, "decisions": done}
    if record:
        clock |= {"ended": STARTED + 60, "status": "FINISHED", "content": files.content(record)}
    files.write_json(path, clock | more)
    return path


def runs(client: Client, kind: str = "") -> list[Any]:
    """All MLflow runs that were not deleted, or those of a kind."""
    ids = [found.experiment_id for found in client.search_experiments()]
    wanted = f"tags.kind = '{kind}'" if kind else ""
    return list(client.search_runs(ids, wanted, max_results=50_000))


def contents(client: Client, *, times: bool = True) -> str:
    """All that a store shows, whatever the ids of its runs are."""
    found = runs(client)
    names = {run.info.run_id: run.info.run_name for run in found}
    shown = json.dumps(sorted((described(client, run, times) for run in found), key=str), indent=1)
    for run_id, name in names.items():
        shown = shown.replace(run_id, name)
    return shown


def described(client: Client, run: Any, times: bool) -> Mapping[str, Any]:
    history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    with tempfile.TemporaryDirectory() as folder:
        client.download_artifacts(run.info.run_id, "", folder)
        # MLflow gives each picture a name with a number that varies.
        artifacts = sorted(
            (path.name.split("+timestamp")[0], path.suffix, files.sha256(path))
            for path in Path(folder).rglob("*")
            if path.is_file()
        )
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "times": (run.info.start_time, run.info.end_time) if times else None,
        "tags": {key: value for key, value in run.data.tags.items() if times or key != "key"},
        "params": run.data.params,
        "points": {
            name: sorted((point.step, str(point.value), point.timestamp if times else 0) for point in points)
            for name, points in history.items()
        },
        "images": [(used.dataset.name, used.dataset.digest) for used in run.inputs.dataset_inputs],
        "artifacts": artifacts,
    }


def aliases(client: Client) -> dict[str, int]:
    """Those of `selfscale-sobel`."""
    found = client.get_registered_model("selfscale-sobel").aliases
    return {alias: int(version) for alias, version in found.items()}
