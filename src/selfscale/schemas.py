"""What the files hold that stages leave for each other: checked wherever one of them is read.

Only what is read of a file is named here; more may be in it.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from selfscale.errors import one_line

Count: TypeAlias = Annotated[int, Field(ge=0)]
Size: TypeAlias = Annotated[float, Field(ge=0)]
Scores: TypeAlias = dict[str, float]  # by the metric
SplitName: TypeAlias = Literal["train", "validation", "test"]
Interval: TypeAlias = dict[Literal["low", "high"], float | None]  # of a loss; from one photograph no high
Number: TypeAlias = Annotated[float, Field(allow_inf_nan=True)]  # of a session that may have diverged


class Content(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Image(Content):
    split: SplitName
    name: str
    height: Count
    width: Count
    scale: Annotated[float, Field(ge=1)]
    top: Count
    left: Count
    sha256: str


class Prepared(Content):
    """`data/prepared/manifest.json`."""

    source: str
    size: Annotated[int, Field(ge=1)]
    split_seed: int = 0
    counts: dict[SplitName, dict[str, Count]]
    fingerprint: str
    skipped: list[dict[str, str]] = []
    images: list[Image] = []


class Targets(Content):
    """`data/targets/TASK/manifest.json`."""

    operator: str | None = None
    problem: str | None = None
    arguments: dict[str, Any] = {}
    discrete: bool
    images: str


class Budget(Content):
    """`models/budget/*.json`."""

    steps: Annotated[int, Field(ge=1)]


class Trained(Content):
    """`training.json`."""

    task: str
    seed: Count
    ended: str
    training_steps: Count
    filters: list[Count]
    parameters: Count
    macs_per_pixel: Size
    validation: Scores
    test: Scores
    test_interval: Interval


class BeforeAndAfter(Content):
    initial: Scores
    final: Scores


class Trial(Content):
    """What `result.json` of a baseline has, too."""

    task: str
    seed: Count
    loss: str
    filters_kept: list[Count]
    parameters: Count
    macs_per_pixel: Size
    validation: BeforeAndAfter
    test: BeforeAndAfter
    test_interval: dict[Literal["initial", "final"], Interval]
    decisions: Count
    training_steps: Count


class BaselineResult(Trial):
    steps: Count


class Point(Content):
    """A network on the way."""

    decision: Count
    filters_kept: list[Count]
    parameters: Count
    macs_per_pixel: Size
    validation: float
    test: float
    test_interval: Interval


class Result(Trial):
    """`result.json` of a minimization."""

    strategy: str
    problem: str = ""
    filters_initial: list[Count]
    filters_grown: list[Count] = []
    parameters_initial: Count
    macs_per_pixel_initial: Size
    accepted: Count
    reverted: Count
    training_steps_initial: Count = 0
    targets: str = ""
    frontier_steps: Count = 0
    kept: list[Point] = []


class Session(Content):
    steps: Count
    losses: list[tuple[Count, Number]]
    scores: list[tuple[Count, Number]]
    ended: str


class Decision(Content):
    """An entry of `decisions.json`."""

    number: Count
    alteration: str
    tried: str = ""  # of a problem's channels, which are no filters by layer and number
    filters: list[tuple[Count, Count]]
    selection_score: Number | None = None
    started_from: Count
    score: Number
    metrics: dict[str, Number]
    accepted: bool
    reason: str
    filters_kept: list[Count]
    parameters: Count
    macs_per_pixel: Size
    session: Session


class Comparison(Content):
    """`reports/comparison.json`."""

    results: dict[str, Result]
    baseline: dict[str, BaselineResult]
    summary: dict[str, dict[str, dict[str, Any]]]
    paired: dict[str, list[dict[str, Any]]]


class Pick(Point):
    """An entry of `picks.json`."""

    strategy: str
    seed: Count
    path: str


class Dataset(Content):
    name: str
    digest: str


class Run(Content):
    """`run.json` of a record."""

    kind: Literal["training", "minimization", "baseline"]
    task: str
    seed: Count
    strategy: str = ""
    settings: dict[str, Any] = {}
    dataset: Dataset | None = None


class Tested(Content):
    """What an ablation measures."""

    session: dict[str, Any]


class AblationTest(Tested):
    test: str
    filter: tuple[Count, Count]
    successor: dict[str, Any] | None


class Ablation(Content):
    """`reports/worth-*.json`."""

    task: str
    seed: Count
    loss: str
    session_steps: Count
    baseline: Tested
    tests: list[AblationTest]


class Benchmark(Content):
    """`benchmarks/exhaustive-*.json`."""

    inputs: str
    steps: Count
    frontiers: dict[str, list[dict[str, Any]]]


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def problem(content: bytes, schema: Any) -> str:
    """Say in one line where JSON is not as its schema says; empty if it is."""
    try:
        _adapter(schema).validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        return one_line(f"{where}: {first['msg'].lower()}" if where else first["msg"].lower())
    return ""
