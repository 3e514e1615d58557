"""All settings of `params.yaml`, with their limits: runs, strategies and the registry here.

The others are in `config` (network, training), `search_config` (trials, growth) and `data_config` (tasks).

Unknown or mistyped keys are an error that names the key and what was expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from selfscale.config import Evaluation, Execution, Network, Relative, Section, Seed, Training, Widths
from selfscale.data_config import Data, Task
from selfscale.errors import UserError, shown, unknown
from selfscale.search_config import Growth, Minimization, Scaling
from selfscale.yaml_files import first_problem, read_yaml

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]*$", max_length=60)]
# Of 4 bytes: of a network, which training holds several times; and of all layers in a training step.
MOST_WEIGHTS, MOST_ACTIVATIONS = 2**27, 2**31


def _each_once(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError("the same twice counts as two runs, but is one; leave it out")
    return values


Once = AfterValidator(_each_once)


class Strategy(Section):
    """A selection strategy by its registered name, with its arguments."""

    select: str = Field(description="one of the strategies below, or `module:function`")
    arguments: dict[str, Any] = Field({}, description="of the strategy")
    scaling: bool = Field(False, description="the network may grow before, as the section scaling says")
    start: Widths | None = Field(
        None, description="filters of the hidden layers to start from; null: network.widths"
    )


class Runs(Section):
    """What the pipeline runs: every combination of these."""

    tasks: Annotated[list[Name], Once] = Field(
        min_length=1, max_length=1000, description="names of the section tasks"
    )
    strategies: Annotated[list[Name], Once] = Field(
        min_length=1, max_length=1000, description="names of the section strategies"
    )
    seeds: Annotated[list[Seed], Once] = Field(
        min_length=1,
        max_length=10_000,
        description="numbers from which a run's random numbers come; each one trains a network of its own",
    )


class Registry(Section):
    """Which of a task's networks is registered, by the validation split."""

    rule: Literal["smallest", "score"] = Field(
        "smallest",
        description="fewest multiply-accumulates of those within tolerance | score: best validation score",
    )
    tolerance: Relative = Field(
        0.1, description="of the validation score over the initial network's, relative"
    )
    fast: bool = Field(
        False,
        description="register it on blocks of pixels, for programs that load or serve it; the same output",
    )

    def within(self, score: float, initial: float) -> bool:
        """Whether a validation score is within the tolerance of the initial network's."""
        return score <= (1 + self.tolerance) * initial

    def order(self, score: float, initial: float, macs: float) -> tuple[float, ...]:
        """The rule as a key: the network of the least one is the best. Arguments as for `within`."""
        if self.rule == "smallest" and self.within(score, initial):
            return 0, macs, score
        return 1, score, macs


class Settings(Section):
    """The whole of `params.yaml`."""

    runs: Runs = Field(description="what the pipeline runs: every combination of these")
    data: Data = Field(Data(), description="where the photographs come from")
    tasks: dict[Name, Task] = Field(description="entries by names of your own, NAME below")
    network: Network = Field(Network(), description="what is trained first")
    training: Training = Field(Training(), description="of every session")
    evaluation: Evaluation = Field(Evaluation(), description="how scores are measured")
    minimization: Minimization = Field(Minimization(), description="what a trial is, and when it is accepted")
    growth: Growth = Field(
        Growth(), description="of strategies with `scaling: true`, before anything is removed"
    )
    scaling: Scaling = Field(Scaling(), description="of the same strategies")
    strategies: dict[Name, Strategy] = Field(description="entries by names of your own, NAME below")
    registry: Registry = Field(Registry(), description="which of a task's networks is registered")
    execution: Execution = Field(Execution(), description="how the work is spread")

    @model_validator(mode="after")
    def limits_agree(self) -> Settings:
        most, least = self.scaling.max_macs_per_pixel, self.minimization.limits.macs_per_pixel
        if most is not None and least is not None and most < least:
            raise ValueError(
                f"scaling.max_macs_per_pixel: {most:g} is below minimization.limits.macs_per_pixel, "
                f"{least:g}: a network cannot stay below the one and above the other"
            )
        return self

    @model_validator(mode="after")
    def fits_a_memory(self) -> Settings:
        for widths in (self.network.widths, *(one.start for one in self.strategies.values() if one.start)):
            self.require_memory(widths)
        return self

    def require_memory(self, widths: Sequence[int]) -> None:
        """Raise ValueError for hidden layers of so many filters if no machine's memory holds them."""
        channels, batch = [1, *widths, 1], self.training.batch
        weights = self.network.kernel**2 * sum(a * b for a, b in pairwise(channels))
        activations = batch * (self.training.crop or self.data.size) ** 2 * sum(channels)
        if weights > MOST_WEIGHTS or activations > MOST_ACTIVATIONS:
            raise ValueError(
                f"a network of {shown(list(widths))} filters has {weights:.1e} weights (at most "
                f"{MOST_WEIGHTS:.1e}) and {activations:.1e} values in a training step (at most "
                f"{MOST_ACTIVATIONS:.1e}); lower the filters, network.kernel, training.batch or training.crop"
            )

    @model_validator(mode="after")
    def runs_are_defined(self) -> Settings:
        for kind in ("tasks", "strategies"):
            known = getattr(self, kind)
            for name in getattr(self.runs, kind):
                if name not in known:
                    raise ValueError(unknown(f"runs.{kind}", name, known))
        return self

    def may_grow(self, strategy: str) -> bool:
        """Whether minimizations by a strategy depend on `growth` and `scaling`."""
        return self.strategies[strategy].scaling or self.minimization.target is not None

    def starting_from(self, start: Sequence[int]) -> Settings:
        """The settings for another start than `network.widths`; without one, these."""
        if not start:
            return self
        try:
            self.require_memory(TypeAdapter(Widths).validate_python(list(start)))
        except ValidationError as error:
            raise UserError(f"the start: {first_problem(error, Settings)}") from error
        except ValueError as error:
            raise UserError(f"the start: {error}") from error
        network = self.network.model_copy(update={"widths": list(start)})
        return self.model_copy(update={"network": network})


def load(path: Path) -> Settings:
    """Read and check a file of settings.

    Raises:
        UserError: the file is missing, is not YAML, or has an unknown or wrong key.
    """
    content = read_yaml(path)
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error, Settings)}") from error
