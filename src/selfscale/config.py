"""The settings of `params.yaml`: read, checked and frozen.

Unknown or mistyped keys are an error that names the key and what was expected. Every section is a
frozen model, so that a stage can be handed exactly the sections that it uses. What a key means is said
by the comments of `params.yaml`, and here only of keys that stand there as examples, or not at all.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from selfscale.errors import UserError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]*$", max_length=60)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Folder(Section):
    """Any folder of photographs, searched recursively."""

    path: str | None = None


class Voc2012(Section):
    """The VOC2012 archives: local tar files, or, if none is named, the official download."""

    archives: list[str] = []
    url: Annotated[str, Field(description="what is downloaded")] = (
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
    )
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="of what is downloaded")] = (
        "6cd6e144f989b92b3379bac3b3de84fd"
    )


class Split(Section):
    """Shares of the photographs; they add up to one."""

    train: Annotated[float, Field(gt=0, lt=1)] = 0.6
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2

    @model_validator(mode="after")
    def adds_up(self) -> Split:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, validation and test must add up to 1, not {total:g}")
        return self


class Data(Section):
    source: Literal["sample", "folder", "voc2012"] = "sample"
    folder: Folder = Folder()
    voc2012: Voc2012 = Voc2012()
    size: Annotated[int, Field(ge=16)] = 256
    split: Split = Split()
    split_seed: Seed = 23


class Task(Section):
    """What the network has to imitate, an operator or wanted outputs in files, and the loss of that."""

    operator: Annotated[str | None, Field(description="one of the operators below, or `module:function`")] = (
        None
    )
    arguments: Annotated[dict[str, Any], Field(description="of the operator")] = {}
    targets: Annotated[
        str | None, Field(description="instead of an operator: a folder of wanted outputs, paired by name")
    ] = None
    loss: Annotated[
        Literal["mae", "mse", "soft_f1"],
        Field(description="what is trained and decided by; soft_f1: of discrete tasks only"),
    ]

    @model_validator(mode="after")
    def has_one_teacher(self) -> Task:
        if (self.operator is None) == (self.targets is None):
            both = "not both" if self.operator else "one of them is needed"
            raise ValueError(f"name an operator, or a folder of wanted outputs as targets; {both}")
        if self.targets is not None and self.arguments:
            raise ValueError("arguments are those of an operator; targets have none")
        return self


class Network(Section):
    widths: Annotated[list[Count], Field(min_length=1)] = [5, 5]
    kernel: Count = 5
    init_mean: float = 0.0
    init_deviation: Annotated[float, Field(gt=0)] = 0.1


class FirstSession(Section):
    """Cycles of `steps` steps until the validation score stagnates."""

    steps: Count = 600
    max_cycles: Count = 6
    min_gain: Share = 0.1
    restarts: Annotated[int, Field(ge=0)] = 3


class Training(Section):
    batch: Count = 8
    crop: Annotated[int, Field(ge=8)] | None = 64
    learning_rate: Annotated[float, Field(gt=0)] = 0.005
    warmup: Share = 0.1
    clip_norm: Annotated[float, Field(gt=0)] = 0.1
    evaluations: Count = 4
    first: FirstSession = FirstSession()


class Evaluation(Section):
    threshold: Share = 0.5
    max_images: Count = 100


class Acceptance(Section):
    """When a trial is kept; `confidence` is that of the non-inferiority test."""

    rule: Literal["non_inferiority", "threshold"] = "non_inferiority"
    reference: Literal["initial", "previous", "best"] = "initial"
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class Removal(Section):
    """Trials of filters: what is done to them, to how many at once, and for how long it is trained."""

    alterations: Annotated[
        list[Literal["disable", "disable_and_freeze", "reinitialize"]], Field(min_length=1)
    ] = ["disable"]
    group: Literal["adaptive"] | Count = "adaptive"
    max_failures: Count | None = 32
    steps: Count = 600

    @field_validator("group", mode="before")
    @classmethod
    def adaptive_or_count(cls, group: Any) -> Any:
        if group != "adaptive" and (type(group) is not int or group < 1):
            raise ValueError(f"expected 'adaptive' or a number of filters from 1, not {group!r}")
        return group


class LayerRemoval(Section):
    """Trials of whole hidden layers; no `tries`: layers are never removed."""

    tries: Annotated[int, Field(ge=0)] = 2
    steps: Count = 5000
    learning_rate: Annotated[float, Field(gt=0)] = 0.01


class Limits(Section):
    """No further trial once one of these is reached: trials, training steps and seconds, size.

    `steps` also keeps out trials that would exceed it; the last session comes on top.
    """

    decisions: Count | None = None
    steps: Count | None = 11500
    seconds: Annotated[float, Field(gt=0)] | None = None
    macs_per_pixel: Annotated[float, Field(ge=0)] | None = None


class Minimization(Section):
    removal: Removal = Removal()
    layers: LayerRemoval = LayerRemoval()
    last_session_steps: Annotated[int, Field(ge=0)] = 3500
    tolerance: Annotated[float, Field(ge=0)] = 0.1
    near: Annotated[float, Field(ge=0)] = 0.4
    max_cycles: Count = 3
    acceptance: Acceptance = Acceptance()
    stop_hopeless: bool = True
    speculative: Count = 1
    limits: Limits = Limits()


class Growth(Section):
    """Where and for how long a network grows, and what a growth has to gain.

    `min_gain`: of score, for each thousand multiply-accumulates per pixel or parameters (`per`) that it
    adds. `tries` of growth that fail one after another end it.
    """

    select: str = "uniform"
    arguments: dict[str, Any] = {}
    steps: Count = 3000
    min_gain: Annotated[float, Field(ge=0)] = 0.003
    per: Literal["macs_per_pixel", "parameters"] = "macs_per_pixel"
    tries: Count = 3


class Scaling(Section):
    """Whether strategies with `scaling` grow a network, shrink it, or do both, and how far it may grow.

    `mode` None: both if the start is `small`, else shrink. The limits are those of the growth; its steps
    are for removals where nothing is grown.
    """

    mode: Literal["shrink", "grow", "both"] | None = None
    small: Annotated[float, Field(ge=0)] = 1000.0
    max_macs_per_pixel: Annotated[float, Field(gt=0)] | None = None
    max_parameters: Count | None = None
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    max_steps: Annotated[int, Field(ge=0)] = 40000

    def mode_from(self, macs_per_pixel: float) -> Literal["shrink", "grow", "both"]:
        """The mode of a start of that size."""
        return self.mode or ("both" if macs_per_pixel <= self.small else "shrink")

    def allows(self, parameters: int, macs_per_pixel: float) -> bool:
        """Whether a network of that size is within the limits."""
        return (self.max_macs_per_pixel is None or macs_per_pixel <= self.max_macs_per_pixel) and (
            self.max_parameters is None or parameters <= self.max_parameters
        )


class Registry(Section):
    """Which of a task's networks is registered, by the test split: see `report.choose`."""

    rule: Literal["smallest", "score"] = "smallest"
    tolerance: Annotated[float, Field(ge=0)] = 0.1


class Execution(Section):
    """How the work is spread; only `threads`, `deterministic` and `mixed_precision` can change results.

    `workers`: processes side by side, None: as many as fit cores and memory. `threads` of each process
    for its operations: another number sums in another order, so it is set and not derived.
    """

    engine: Literal["processes", "ray"] = "processes"
    workers: Count | None = None
    threads: Count = 1
    deterministic: bool = True
    mixed_precision: bool = False


class Strategy(Section):
    """A selection strategy by its registered name, with its arguments."""

    select: Annotated[str, Field(description="one of the strategies below, or `module:function`")]
    arguments: Annotated[dict[str, Any], Field(description="of the strategy")] = {}
    scaling: Annotated[
        bool, Field(description="the network may grow before, as the section scaling says")
    ] = False
    start: Annotated[
        Annotated[list[Count], Field(min_length=1)] | None,
        Field(description="filters of the hidden layers to start from; null: network.widths"),
    ] = None


class Runs(Section):
    """What the pipeline runs: every combination of these."""

    tasks: Annotated[list[Name], Field(min_length=1)]
    strategies: Annotated[list[Name], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]


class Settings(Section):
    runs: Runs
    data: Data = Data()
    tasks: dict[Name, Task]
    network: Network = Network()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    minimization: Minimization = Minimization()
    growth: Growth = Growth()
    scaling: Scaling = Scaling()
    strategies: dict[Name, Strategy]
    registry: Registry = Registry()
    execution: Execution = Execution()

    @model_validator(mode="after")
    def limits_agree(self) -> Settings:
        most, least = self.scaling.max_macs_per_pixel, self.minimization.limits.macs_per_pixel
        if most is not None and least is not None and most < least:
            raise ValueError(
                f"scaling.max_macs_per_pixel: {most:g} is below minimization.limits.macs_per_pixel, "
                f"{least:g}: a network cannot stay below the one and above the other"
            )
        return self

    def starting_from(self, start: Sequence[int]) -> Settings:
        """The settings for another start than `network.widths`; without one, these."""
        if not start:
            return self
        network = self.network.model_copy(update={"widths": list(start)})
        return self.model_copy(update={"network": network})

    @model_validator(mode="after")
    def runs_are_defined(self) -> Settings:
        for kind, named, known in (
            ("tasks", self.runs.tasks, self.tasks),
            ("strategies", self.runs.strategies, self.strategies),
        ):
            for name in named:
                if name not in known:
                    raise ValueError(unknown(f"runs.{kind}", name, known))
        return self


def unknown(where: str, name: str, valid: Sequence[str] | dict[str, Any]) -> str:
    """`where: 'nmae' is unknown; did you mean 'name'? (valid: ...)`, for one line on stderr."""
    close = difflib.get_close_matches(str(name), list(valid), n=1)
    hint = f" did you mean '{close[0]}'?" if close else ""
    return f"{where}: '{name}' is unknown;{hint} valid: {', '.join(sorted(valid))}"


def load(path: Path) -> Settings:
    """Read and check a file of settings.

    Raises:
        UserError: the file is missing, is not YAML, or has an unknown or wrong key.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: there is no such file; run this in the project's folder or name it with --params"
        ) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected settings by section (key: value), found {type(content).__name__}")
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    """One line for the first of pydantic's errors: the key, what is wrong, what was expected."""
    # A mistyped key also shows as a missing one: name what was written before what was not.
    problem = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    keys = [str(key) for key in problem["loc"] if key != "[key]"]
    where = ".".join(keys)
    if problem["type"] == "extra_forbidden":
        return unknown(".".join(keys[:-1]) or "settings", keys[-1], _valid_keys(keys[:-1]))
    if problem["type"] == "missing":
        return f"{where}: is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}" if where else message
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        return unknown(
            where,
            problem["input"],
            problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", "),
        )
    return f"{where}: {message[0].lower()}{message[1:]}, not {problem['input']!r}"


def _valid_keys(keys: Sequence[str]) -> list[str]:
    """The keys of the section that `keys` leads to."""
    section: Any = Settings
    for key in keys:
        if isinstance(section, type) and issubclass(section, Section):
            section = section.model_fields[key].annotation
        else:  # a mapping of names to sections
            section = section.__args__[-1]
    return list(section.model_fields)
