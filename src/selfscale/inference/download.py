"""Download networks from the MLflow store: those of registered versions and of runs."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a user's own choice stands

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from selfscale.errors import UserError
from selfscale.tracking.champions import model_name
from selfscale.tracking.store import existing_run, store_errors

# The files of a minimization's and of a training's run.
NETWORKS = ("compact.keras", "initial.keras")


@store_errors()
def registered(client: MlflowClient) -> dict[str, RegisteredModel]:
    """Return every registered network by its task."""
    prefix = model_name("")
    found = client.search_registered_models(f"name LIKE '{prefix}%'")
    return {model.name.removeprefix(prefix): model for model in found}


def listing(client: MlflowClient) -> str:
    """List what `download_version` would find, for a message: `canny@champion, sobel@champion, ...`."""
    names = [
        f"{task}@{alias}" for task, model in registered(client).items() for alias in sorted(model.aliases)
    ]
    return ", ".join(names) or "nothing yet (see `selfscale register`)"


@store_errors()
def download_version(client: MlflowClient, task: str, version: str, folder: Path) -> Path:
    """Download the `.keras` file of a task's version, named by its number or an alias.

    Raises:
        UserError: There is no such task or version, or its files are gone.
        StoreError: The store fails.
    """
    reference, models = f"{task}@{version}", registered(client)
    if task not in models:
        raise UserError(f"{reference}: no network is registered for '{task}'; registered: {listing(client)}")
    aliases = {alias: str(number) for alias, number in models[task].aliases.items()}
    versions = {str(v.version): v for v in client.search_model_versions(f"name = '{model_name(task)}'")}
    chosen = versions.get(aliases.get(version, version))
    if chosen is None:
        valid = ", ".join([*sorted(aliases), *sorted(versions, key=int)])
        raise UserError(f"{reference}: '{task}' has no such version; valid: {valid}")
    return _download_model(client, f"models:/{chosen.name}/{chosen.version}", folder, reference)


@store_errors()
def download_run(client: MlflowClient, run_id: str, folder: Path) -> Path:
    """Download the network of a run, with the other files that the run logged.

    Raises:
        UserError: There is no such run, or it has no network.
        StoreError: The store fails.
    """
    run = existing_run(client, run_id)
    if run is None:
        raise UserError(f"{run_id}: there is no such run in the MLflow store, or it was deleted")
    names = [file.path for file in client.list_artifacts(run_id)]
    for name in NETWORKS:
        if name in names:
            return Path(client.download_artifacts(run_id, "", str(folder))) / name
    for output in run.outputs.model_outputs if run.outputs else ():
        return _download_model(client, f"models:/{output.model_id}", folder, run_id)
    raise UserError(
        f"{run_id}: the run '{run.info.run_name}' has no network; name a minimization's or a training's run"
    )


def _download_model(client: MlflowClient, uri: str, folder: Path, reference: str) -> Path:
    """Download the `.keras` file within a model in MLflow's TensorFlow flavor, of two the plain one."""
    try:
        local = Path(download_artifacts(uri, dst_path=str(folder), tracking_uri=client.tracking_uri))
        found = [*local.glob("extra_files/*.keras"), *local.rglob("*.keras")]
        if found and (local / "MLmodel").exists():
            return found[0]
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    except FileNotFoundError:
        pass
    raise UserError(f"{reference}: its files are gone from the store; run `selfscale register` again")
