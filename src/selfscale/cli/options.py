"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfscale.cli.answers import keep_stdout

TaskArgument = Annotated[str, typer.Argument(help="A task of params.yaml.", show_default=False)]
ParamsOption = Annotated[Path, typer.Option("--params", dir_okay=False, help="The file of settings.")]
SeedOption = Annotated[
    int | None,
    typer.Option(min=0, max=2**31 - 1, help="Default: the first of runs.seeds.", show_default=False),
]
JsonOption = Annotated[
    bool, typer.Option("--json", callback=keep_stdout, help="Print one JSON object (docs/machines.md).")
]
PARAMS = Path("params.yaml")
