"""Which version of a task's registered model is in use: the alias `champion`, and `previous` before it.

Whoever moves `champion` keeps to the rule of `registry`: no version that is worse by it, on the validation
split, takes its place unless it is forced to. Versions that were measured on other images or targets cannot
be compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.artifacts import list_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, FiniteFloat, ValidationError

from selfscale.errors import UserError
from selfscale.settings import Registry
from selfscale.tracking.store import store_errors

CHAMPION, PREVIOUS = "champion", "previous"
MEASURED = "selfscale"  # the tag of a version that is for programs


class Measured(BaseModel):
    """What a version is compared by, and the file that it was made from.

    `block`: the shape of the blocks of pixels that it runs on, empty if it is the plain network.
    """

    sha256: str
    block: str
    targets: str
    loss: str
    validation_final: FiniteFloat
    validation_initial: FiniteFloat
    macs_per_pixel: FiniteFloat

    def order(self, rule: Registry) -> tuple[float, ...]:
        return rule.order(self.validation_final, self.validation_initial, self.macs_per_pixel)

    def __str__(self) -> str:
        return f"{self.validation_final:.4g} at {self.macs_per_pixel:g}"


class Standing(NamedTuple):
    """The aliases after a version was looked at, and in words why they are so."""

    name: str
    version: int
    champion: int
    previous: int | None
    note: str


class Comparison(NamedTuple):
    """Whether a version is worse than the champion, and the reason in words."""

    worse: bool
    words: str


def model_name(task: str) -> str:
    return f"selfscale-{task}"


@store_errors()
def promote(
    client: MlflowClient, task: str, number: int | None = None, *, rule: Registry, force: bool = False
) -> Standing:
    """Make a version, by default the newest one, the champion.

    Raises:
        UserError: there is no such version, its files are gone, or it is worse and not forced.
        StoreError: the store fails.
    """
    name = model_name(task)
    version = version_of(client, name, number)
    compared = compare(client, version, rule, with_all=True)
    if compared and compared.worse and not force:
        raise UserError(
            f"{name} version {version.version}: {compared.words}; --force promotes it all the same"
        )
    return appoint(client, version, compared)


@store_errors()
def rollback(client: MlflowClient, task: str) -> Standing:
    """Let `champion` and `previous` change places.

    Raises:
        UserError: there is no former champion, or its files are gone.
        StoreError: the store fails.
    """
    name = model_name(task)
    version_of(client, name)
    former = aliases(client, name).get(PREVIOUS)
    if former is None:
        raise UserError(f"{name}: has no former champion to go back to; `selfscale promote` names another")
    return appoint(client, version_of(client, name, former), None)


@store_errors()
def propose(client: MlflowClient, version: ModelVersion, rule: Registry | None) -> Standing:
    """Make a version the champion unless it is worse by the rule, if there is one."""
    compared = compare(client, version, rule) if rule else None
    if not compared or not compared.worse:
        return appoint(client, version, compared)
    task = version.name.removeprefix("selfscale-")
    remedy = f"`selfscale promote {task} --version {version.version} --force` makes it champion all the same"
    return standing(client, version, f"not champion: {compared.words}; {remedy}")


def appoint(client: MlflowClient, version: ModelVersion, compared: Comparison | None) -> Standing:
    """Move the alias `champion` to a version, and `previous` to the champion that it replaces."""
    former = aliases(client, version.name).get(CHAMPION)
    if former == int(version.version):
        return standing(client, version, "champion already")
    if former is not None:
        client.set_registered_model_alias(version.name, PREVIOUS, str(former))
    client.set_registered_model_alias(version.name, CHAMPION, version.version)
    replaced = f"champion; version {former} is previous" if former is not None else "champion, the first one"
    return standing(client, version, f"{replaced}: {compared.words}" if compared else replaced)


def standing(client: MlflowClient, version: ModelVersion, note: str) -> Standing:
    now = aliases(client, version.name)
    return Standing(version.name, int(version.version), now[CHAMPION], now.get(PREVIOUS), note)


def compare(
    client: MlflowClient, version: ModelVersion, rule: Registry, *, with_all: bool = False
) -> Comparison | None:
    """A version with the champion, or with the best of all, by what their tags say; None without another one.

    What has no such tags was registered by something else: it is no champion unless somebody says so, and
    nothing is compared with it.
    """
    number = aliases(client, version.name).get(CHAMPION)
    if number in (None, int(version.version)):
        return None
    if not (new := measured(version)):
        return Comparison(True, "selfscale has not measured it, so it cannot be compared")
    wanted = client.search_model_versions(f"name = '{version.name}'")
    if not with_all:
        wanted = [other for other in wanted if int(other.version) == number]
    known = [one for one in wanted if one.version != version.version and measured(one)]
    if not known:
        return Comparison(False, f"version {number} was measured by something else, and not compared")
    whole = [one for one in known if has_artifacts(client, one)]
    if not whole:
        return Comparison(False, f"the files of version {number} are gone")
    found = {int(one.version): old for one in whole if (old := measured(one))}
    alike = {key: old for key, old in found.items() if (old.loss, old.targets) == (new.loss, new.targets)}
    if not alike:
        return Comparison(
            False, f"version {number} was measured on other images or targets, and not compared"
        )
    best = min(alike, key=lambda key: alike[key].order(rule))
    worse = new.order(rule) > alike[best].order(rule)
    words = (
        f"validation {new.loss} {new} multiply-accumulates is {'' if worse else 'not '}worse than "
        f"{alike[best]} of version {best} by registry.rule: {rule.rule}"
    )
    return Comparison(worse, words)


def measured(version: ModelVersion) -> Measured | None:
    """What a version is compared by; None if something else registered it."""
    try:
        return Measured.model_validate_json(version.tags.get(MEASURED, ""))
    except ValidationError:
        return None


def version_of(client: MlflowClient, name: str, number: int | None = None) -> ModelVersion:
    """A version, by default the newest, whose files are there; raises UserError if there is none."""
    versions = {int(version.version): version for version in client.search_model_versions(f"name = '{name}'")}
    if not versions:
        raise UserError(f"{name}: is not registered; run `selfscale register` first")
    number = max(versions) if number is None else number
    if number not in versions:
        there = ", ".join(map(str, sorted(versions)))
        raise UserError(f"{name}: there is no version {number}; versions: {there}")
    if not has_artifacts(client, versions[number]):
        raise UserError(f"{name} version {number}: its files are gone; run `selfscale register` again")
    return versions[number]


def aliases(client: MlflowClient, name: str) -> dict[str, int]:
    return {alias: int(version) for alias, version in client.get_registered_model(name).aliases.items()}


def has_artifacts(client: MlflowClient, version: ModelVersion) -> bool:
    """Whether a version's files are there, also those of a copy of another version."""
    try:
        place = client.get_model_version_download_uri(version.name, version.version)
        found = list_artifacts(artifact_uri=place, tracking_uri=client.tracking_uri)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return any(Path(file.path).name == "MLmodel" for file in found)
