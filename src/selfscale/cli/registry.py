"""The commands that choose which network is in use: from the curve of sizes, and in the model registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfscale.cli.answers import answer
from selfscale.cli.loading import import_pipeline, load
from selfscale.cli.options import PARAMS, JsonOption, ParamsOption, TaskArgument
from selfscale.errors import UserError
from selfscale.paths import store_root

if TYPE_CHECKING:
    from selfscale.tracking.champions import Standing

commands = typer.Typer()
MOST = 1e12  # of multiply-accumulates, a score or milliseconds


def bounded(value: float | None) -> float | None:
    """A number that a network can have; click's own limits let `nan` through."""
    if value is not None and not 0 <= value <= MOST:
        raise typer.BadParameter(f"{value:g} is not in the range 0 to {MOST:g}.")
    return value


@commands.command()
def curve(task: TaskArgument, as_json: JsonOption = False, params: ParamsOption = PARAMS) -> None:
    """List the best network of each size, with its speed on this machine."""
    settings = load(params, task=task)
    import_pipeline(settings.execution)
    from selfscale.pipeline import pick as picking

    points = picking.networks(settings, task)
    speeds = picking.speeds(settings, points, task)
    found = [picking.about(point, task) | speeds[point.path]._asdict() for point in points]
    answer(as_json, lambda: {"task": task, "networks": found}, "\n".join(map(network_in_words, found)))


@commands.command()
def pick(
    task: TaskArgument,
    max_macs: Annotated[
        float | None,
        typer.Option(callback=bounded, help="Multiply-accumulates per pixel.", show_default=False),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            callback=bounded, help="A validation score to reach (a loss: or below).", show_default=False
        ),
    ] = None,
    max_ms: Annotated[
        float | None,
        typer.Option(callback=bounded, help="Milliseconds per megapixel, measured.", show_default=False),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Let the rule of `registry` decide again.")] = False,
    as_json: JsonOption = False,
    params: ParamsOption = PARAMS,
) -> None:
    """Choose a network by size, score or speed, in picks.json."""
    if (max_macs, min_score, max_ms).count(None) + (not clear) != 3:
        raise UserError("pick: name one of --max-macs, --min-score, --max-ms and --clear")
    settings = load(params, task=task)
    from selfscale.pipeline import pick as picking

    if clear:
        had = picking.unpick(task)
        return answer(as_json, lambda: {"task": task, "cleared": had}, f"{task}: the rule decides")
    import_pipeline(settings.execution)
    found = picking.pick(settings, task, max_macs=max_macs, min_score=min_score, max_ms=max_ms)
    chosen = f"{found['strategy']}, seed {found['seed']}, decision {found['decision']}"
    words = f"{task}: {chosen}: filters {found['filters_kept']}, {network_in_words(found)}"
    answer(as_json, lambda: found, words)


@commands.command()
def register(as_json: JsonOption = False, params: ParamsOption = PARAMS) -> None:
    """Put each task's network into the model registry, as selfscale-TASK.

    It becomes the champion unless the present one is better by registry.rule, or if it was picked.
    """
    settings = load(params)
    from selfscale.pipeline import register as registering

    standings = {}
    for task in settings.runs.tasks:
        standings[task] = registering.register(settings, task)
        if not as_json:
            typer.echo(in_words(standings[task]))
    answer(as_json, lambda: {task: standing._asdict() for task, standing in standings.items()})


@commands.command()
def promote(
    task: TaskArgument,
    version: Annotated[
        int | None, typer.Option(min=1, help="Default: the newest.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Even if it is worse than the champion.")] = False,
    as_json: JsonOption = False,
    params: ParamsOption = PARAMS,
) -> None:
    """Make a version the champion, unless it is worse by registry.rule."""
    rule = load(params, task=task).registry
    from selfscale.tracking import champions
    from selfscale.tracking.store import open_store

    standing = champions.promote(open_store(store_root()), task, version, rule=rule, force=force)
    answer(as_json, standing._asdict, in_words(standing))


@commands.command()
def rollback(task: TaskArgument, as_json: JsonOption = False, params: ParamsOption = PARAMS) -> None:
    """Make the previous champion the champion again."""
    load(params, task=task)
    from selfscale.tracking import champions
    from selfscale.tracking.store import open_store

    standing = champions.rollback(open_store(store_root()), task)
    answer(as_json, standing._asdict, in_words(standing))


def in_words(standing: Standing) -> str:
    return f"{standing.name} version {standing.version}: {standing.note}"


def network_in_words(network: Mapping[str, Any]) -> str:
    return (
        f"{network['macs_per_pixel']:g} multiply-accumulates per pixel, {network['parameters']} parameters, "
        f"{network['ms_per_megapixel']:.1f} ms per megapixel, validation score {network['validation']:.4g}, "
        f"test score {network['test']:.4g}: {network['path']}"
    )
