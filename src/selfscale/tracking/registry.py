"""The model registry: a task's network as `selfscale-TASK`, loadable without this package.

`models:/selfscale-TASK@champion` is the present one, `@previous` the one before it. A file is
registered once, also by two processes at the same time; `find` tells whether it is, without TensorFlow.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from selfscale import files
from selfscale.errors import UserError
from selfscale.settings import Registry
from selfscale.tracking.champions import (
    MEASURED,
    Measured,
    Standing,
    has_artifacts,
    measured,
    model_name,
    propose,
)
from selfscale.tracking.points import facts, summary
from selfscale.tracking.store import existing_run, experiment, store_errors, store_folder

EXAMPLE_SIDE = 32
IMAGES = """\
what `{task}` does to gray images of any size: float32 (N, height, width, 1), from 0 (black) to 1 (white)"""
ABOUT = """\
A small network that does {what}.
Use `models:/selfscale-{task}@champion`; `@previous` is the one before it.
The page of each version has its model card.
"""


class OnBlocks(NamedTuple):
    """The same network as a model on blocks of pixels, in a `.keras` file; `block` is their shape."""

    path: Path
    block: str


@store_errors()
def register(
    client: MlflowClient,
    task: str,
    model_path: Path,
    result: Mapping[str, Any],
    card: str,
    run_id: str | None,
    rule: Registry | None,
    fast: OnBlocks | None = None,
) -> Standing:
    """Make the `.keras` file a version, and the champion of its task unless the present one is better.

    By the `rule`; what somebody picked comes without one, and becomes champion in any case.

    A file that is registered already gets no second version, but for one that is `fast`: that is what
    MLflow loads and serves then, with the plain file beside it. The model belongs to the run `run_id`, or,
    if that was deleted, to a new one (`kind=registration`); the version's description is the Markdown
    `card`, with a link to that run.

    Raises:
        UserError: the file is missing or damaged.
        StoreError: the store fails.
    """
    if not model_path.exists():
        raise UserError(f"{model_path}: is missing; run `selfscale minimize {task}` first")
    name, digest, folder = model_name(task), files.sha256(model_path), store_folder(client)
    with FileLock(folder / "registry.lock") if folder else nullcontext():
        if version := find(client, name, digest, fast is not None):
            return propose(client, version, rule)
        whole = existing_run(client, run_id) is not None and client.list_artifacts(run_id)
        holder = run_id if run_id and whole else registration_run(client, task, summary(result))
        source = log_model(client, task, model_path, holder, fast)
        try:
            client.create_registered_model(name, description=about(task, result))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        page = f"#/experiments/{experiment(client, task)}/runs/{holder}"
        version = client.create_model_version(
            *(name, source, holder, version_tags(result, digest, fast.block if fast else "")),
            description=f"{card}\n\nMade by the run [`{holder}`]({page}).",
            model_id=source.removeprefix("models:/"),
        )
        first = (made_from(client, name, digest, fast is not None) or [version])[-1]
        if first.version != version.version:  # on a server, another machine was faster
            client.delete_model_version(name, version.version)
        return propose(client, first, rule)


@store_errors()
def find(client: MlflowClient, name: str, digest: str, fast: bool = False) -> ModelVersion | None:
    """The newest version made from a file of that digest whose artifacts are still there."""
    return next(iter(made_from(client, name, digest, fast)), None)


def made_from(client: MlflowClient, name: str, digest: str, fast: bool) -> list[ModelVersion]:
    """All of them, newest first."""
    found = client.search_model_versions(f"name = '{name}'")
    same = [
        one for one in found if (old := measured(one)) and (old.sha256, bool(old.block)) == (digest, fast)
    ]
    whole = [version for version in same if has_artifacts(client, version)]
    return sorted(whole, key=lambda version: int(version.version), reverse=True)


def registration_run(client: MlflowClient, task: str, words: str) -> str:
    """A run that only holds a model, ended at once: the files are registered, but their run is gone."""
    tags = {"kind": "registration", "task": task, "mlflow.note.content": words}
    run = client.create_run(experiment(client, task), tags=tags, run_name="registration")
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def log_model(client: MlflowClient, task: str, model_path: Path, run_id: str, fast: OnBlocks | None) -> str:
    """Log in MLflow's TensorFlow flavor, with what is needed to load and serve it; returns its URI."""
    import keras
    import mlflow.tensorflow
    import tensorflow

    # MLflow tries the example, of which Keras shows a progress bar, else in the log.
    keras.config.disable_interactive_logging()
    logging.getLogger("absl").setLevel(logging.WARNING)
    model = files.load_model(fast.path if fast else model_path, f"minimize {task}")
    logged = client.create_logged_model(experiment(client, task), model_name(task), source_run_id=run_id)
    # Else MLflow stores objects that this process has registered with Keras, and loading needs their modules.
    with patch.dict(keras.saving.get_custom_objects(), clear=True):
        Model.log(
            artifact_path=None,
            flavor=mlflow.tensorflow,
            model_id=logged.model_id,
            run_id=run_id,
            model=model,
            extra_files=[str(model_path)] if fast else None,
            signature=ModelSignature(inputs=schema(model.inputs), outputs=schema(model.outputs)),
            input_example=example(model.inputs),
            pip_requirements=[
                f"{package.__name__}=={package.__version__}" for package in (mlflow, tensorflow, keras)
            ],
        )
    return f"models:/{logged.model_id}"


def about(task: str, result: Mapping[str, Any]) -> str:
    """What the page of a registered model says."""
    what = IMAGES.format(task=task)
    if problem := result.get("problem"):
        what = f"what the model of the problem `{problem}` does"
    return ABOUT.format(task=task, what=what)


def schema(tensors: Sequence[Any]) -> Schema:
    """What a model takes or gives: for any number of gray images of any one size (-1, -1, -1, 1)."""
    names = [tensor.name for tensor in tensors] if len(tensors) > 1 else [None]
    return Schema(
        [
            TensorSpec(np.dtype(tensor.dtype), tuple(axis or -1 for axis in tensor.shape), name)
            for tensor, name in zip(tensors, names, strict=True)
        ]
    )


def example(tensors: Sequence[Any]) -> Any:
    """A ramp from 0 to 1 along the last axis but one of each input, by name where there are several."""
    found = {}
    for tensor in tensors:
        shape = [1, *(axis or EXAMPLE_SIDE for axis in tensor.shape[1:])]
        axis = max(1, len(shape) - 2)
        ramp = np.linspace(0, 1, shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        found[tensor.name] = np.broadcast_to(ramp, shape).astype(tensor.dtype)
    return found if len(found) > 1 else next(iter(found.values()))


def version_tags(result: Mapping[str, Any], digest: str, block: str) -> dict[str, str]:
    """Four for people, and one for `champions`."""
    loss, final = result["loss"], result["validation"]["final"]
    about = Measured(
        sha256=digest,
        block=block,
        targets=result["targets"],
        loss=loss,
        validation_final=final[loss],
        validation_initial=result["validation"]["initial"][loss],
        macs_per_pixel=result["macs_per_pixel"],
    )
    return {
        "strategy": result["strategy"],
        "seed": str(result["seed"]),
        "macs": facts(result)["macs"],
        "test": f"{loss} {facts(result)['test']}",
        MEASURED: about.model_dump_json(),
    }
