"""What `selfscale doctor` looks at in a project: its MLflow store, images, targets, networks and registry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from selfscale import schemas
from selfscale.cli.findings import Finding
from selfscale.errors import UserError, counted
from selfscale.files import read_json
from selfscale.paths import PICKS, PREPARED, TARGETS, Work, store_root
from selfscale.settings import Settings

if TYPE_CHECKING:
    from selfscale.tracking.store import Client


def store() -> Iterator[Finding]:
    """Opens a store that is there; makes none."""
    from selfscale.tracking.local_store import DATABASE
    from selfscale.tracking.store import VARIABLE, OtherVersion, open_existing, store_errors, store_folder

    database = store_root() / DATABASE
    chosen = os.environ.get(VARIABLE)
    if not chosen and not database.exists():
        yield Finding("store", f"{database}: not there yet; the first training makes it")
        return
    try:
        client = open_existing(store_root())
    except UserError as error:
        if chosen or isinstance(error, OtherVersion):
            raise
        raise UserError(f"{error}; move {database} away to start with an empty store") from error
    folder = store_folder(client)
    with store_errors():
        experiments = [found.experiment_id for found in client.search_experiments()]
        place = folder or client.tracking_uri
        yield Finding("store", f"{place}: opens, {counted(len(experiments), 'experiment')}")
        if folder and (lost := without_files(client, experiments)):
            remedy = "delete these runs in `selfscale ui`, and `selfscale sync` shows them again"
            gone = f"the files of {counted(lost, 'run')} are gone"
            yield Finding("store", f"{folder}: {gone}; {remedy}", problem=True)


def without_files(client: Client, experiments: list[str]) -> int:
    """How many runs of finished records have no folder of artifacts."""
    runs = client.search_runs(experiments, "tags.content != '' AND status = 'FINISHED'", max_results=50_000)
    folders = (Path(url2pathname(urlsplit(run.info.artifact_uri).path)) for run in runs)
    return sum(not folder.is_dir() for folder in folders)


def prepared(settings: Settings | None) -> Iterator[Finding]:
    if settings and all(settings.tasks[task].problem for task in settings.runs.tasks):
        return
    manifest = read_json(PREPARED / "manifest.json", "prepare", schemas.Prepared)
    counts = ", ".join(f"{split} {count['images']}" for split, count in manifest.get("counts", {}).items())
    yield Finding("data", f"{PREPARED}: {manifest.get('source')}, images: {counts}")
    if settings:
        keys = ("source", "size", "split_seed")
        other = [f"data.{key}" for key in keys if manifest.get(key) != getattr(settings.data, key)]
        if other:
            raise UserError(f"{PREPARED}: made with another {', '.join(other)}; run `selfscale prepare`")


def targets(settings: Settings, task: str) -> Iterator[Finding]:
    from selfscale.data.prepare import SPLITS, load_split

    folder, wanted = TARGETS / task, settings.tasks[task]
    made = read_json(folder / "manifest.json", f"targets {task}", schemas.Targets)
    if PREPARED.exists() and not wanted.problem:
        for split in SPLITS:
            load_split(PREPARED, folder, split)
    asked = (wanted.operator, wanted.problem, wanted.arguments)
    if tuple(made.get(key) for key in ("operator", "problem", "arguments")) != asked:
        raise UserError(f"{folder}: made with another operator or arguments; run `selfscale targets {task}`")
    yield Finding("data", f"{folder}: targets of {wanted.operator or wanted.targets or wanted.problem}")


def networks(settings: Settings) -> Iterator[Finding]:
    from selfscale.paths import Training
    from selfscale.pipeline.compare import jobs

    minimizations = jobs(settings)
    trainings = [Training(task, seed) for task in settings.runs.tasks for seed in settings.runs.seeds]
    if not any(work.result.exists() for work in (*trainings, *minimizations)):
        remedy = "run `dvc pull` if there is a remote, then `selfscale repro`"
        yield Finding("networks", f"there are no results, as in a new clone: {remedy}")
        return
    for kind, wanted in (("trained", trainings), ("minimized", minimizations)):
        found = [work for work in wanted if work.result.exists()]
        rest = "" if len(found) == len(wanted) else "; `dvc repro` makes the others"
        yield Finding("networks", f"{len(found)} of {len(wanted)} {kind}{rest}")
        for work in found:
            yield from damage(work)


def damage(work: Work) -> Iterator[Finding]:
    """Files of a finished work that are empty, or gone."""
    result = work.read()
    names = ["initial.keras" if work.verb == "train" else "compact.keras"]
    names += [f"kept/{point['decision']:03}.keras" for point in result.get("kept", [])]
    remedy = f"`dvc checkout` brings it back, or `selfscale {work.command}` makes it again"
    for path in (work.output / name for name in names):
        if not path.exists():
            yield Finding("networks", f"{path}: is gone; {remedy}", problem=True)
    for path in sorted(work.output.rglob("*")):
        if path.is_file() and not path.stat().st_size:
            yield Finding("networks", f"{path}: is empty; {remedy}", problem=True)


def champions(settings: Settings, task: str) -> Iterator[Finding]:
    """Whether a task that is minimized is registered, and the files of its aliases are there."""
    from selfscale.pipeline.compare import jobs
    from selfscale.tracking.champions import aliases, model_name, version_of
    from selfscale.tracking.local_store import DATABASE
    from selfscale.tracking.store import VARIABLE, open_existing, store_errors

    name = model_name(task)
    done = all(job.result.exists() for job in jobs(settings) if job.task == task)
    there = os.environ.get(VARIABLE) or (store_root() / DATABASE).exists()
    try:
        client = open_existing(store_root()) if there else None
    except UserError:  # as the check of the store tells
        return
    with store_errors():
        if client and client.search_model_versions(f"name = '{name}'"):
            for alias, number in aliases(client, name).items():
                version_of(client, name, number)
                yield Finding("registry", f"{name}@{alias}: version {number}")
        elif done:
            remedy = "run `selfscale register`"
            raise UserError(f"{name}: is not registered, though {task} is minimized; {remedy}")


def pick(settings: Settings) -> Iterator[Finding]:
    from selfscale.pipeline.compare import jobs
    from selfscale.pipeline.pick import picked, read_picks

    results = {job.name: job.read() for job in jobs(settings) if job.result.exists()}
    for task in read_picks():
        if task not in settings.tasks:
            text = f"{PICKS}: {task} is no task of the settings; take it out of the file"
            yield Finding("registry", text, problem=True)
        elif results and not picked(results, task):
            text = f"{PICKS}: the network that was picked for {task} is there no more"
            remedy = f"run `selfscale pick {task}` to pick another one, or with --clear none"
            yield Finding("registry", f"{text}; {remedy}", problem=True)
