"""Sections of the settings that the library takes: frozen, checked models without any file format.

The description of a key is its meaning in `docs/params.md` and its comment in `params.yaml`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from selfscale.errors import shown

# Upper limits keep a slip of the hand from filling the memory or never ending; no real use comes near.
STEPS = 10_000_000
FILTERS = 1024  # of a layer
Steps = Annotated[int, Field(ge=1, le=STEPS)]
Few = Annotated[int, Field(ge=1, le=1024)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
Relative = Annotated[float, Field(ge=0, le=1e6)]
Macs = Annotated[float, Field(ge=0, le=1e12)]
Widths = Annotated[list[Annotated[int, Field(ge=1, le=FILTERS)]], Field(min_length=1, max_length=64)]


class Section(BaseModel):
    """A frozen part of the settings, in which unknown and mistyped keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Network(Section):
    """The network that is trained first."""

    widths: Widths = Field(
        [5, 5], description="filters of the hidden layers; one more filter makes the output"
    )
    kernel: int = Field(5, ge=1, le=63, description="side of the square kernels in pixels")
    init_mean: float = Field(
        0.0, ge=-1e3, le=1e3, description="of the first weights, a truncated normal distribution"
    )
    init_deviation: Positive = Field(
        0.1, description="of the first weights; what is beyond two of them is drawn again"
    )


class FirstSession(Section):
    """Cycles of `steps` steps until the validation score stagnates."""

    steps: Steps = Field(600, description="training steps of a cycle")
    max_cycles: int = Field(6, ge=1, le=1000, description="cycles at most")
    min_gain: float = Field(
        0.1, ge=0, le=1, description="of the validation score, relative; a cycle that gains less is the last"
    )
    restarts: int = Field(
        3, ge=0, le=100, description="with fresh weights, when the network dies or has learnt nothing"
    )


class Training(Section):
    """A training session."""

    batch: int = Field(8, ge=1, le=4096, description="crops in a training step")
    crop: int | None = Field(
        64, ge=8, le=8192, description="side of the random crops to train on; null: whole images"
    )
    learning_rate: Positive = Field(
        0.005, description="Adam's, after a linear warm-up; then a cosine decay to zero"
    )
    warmup: float = Field(
        0.1, ge=0, le=1, description="share of a session's steps in which the learning rate rises"
    )
    clip_norm: Positive = Field(
        0.1, description="of all gradients together; longer ones are scaled down to it"
    )
    evaluations: int = Field(4, ge=1, le=10_000, description="per session, on the validation images")
    first: FirstSession = Field(
        FirstSession(),
        description="the long first session: cycles, as long as a filter's trial, until one gains less "
        "than min_gain",
    )


class Evaluation(Section):
    """How scores are measured."""

    threshold: float = Field(0.5, ge=0, le=1, description="of the output, for F1, precision and recall")
    max_images: int = Field(100, ge=1, le=1_000_000, description="validation images used for decisions")


class Acceptance(Section):
    """When a trial is accepted."""

    rule: Literal["non_inferiority", "threshold"] = Field(
        "non_inferiority",
        description="the upper confidence bound must be within tolerance | threshold: the score itself",
    )
    reference: Literal["initial", "previous", "best"] = Field(
        "initial", description="initial | previous | best: the network that a trial is compared with"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="one-sided, of all looks at a trial together")


class Removal(Section):
    """Trials of filters: what is done to them, to how many at once, and for how long it is trained."""

    alterations: list[Literal["disable", "disable_and_freeze", "reinitialize"]] = Field(
        ["disable"],
        min_length=1,
        max_length=100,
        description="disable | disable_and_freeze | reinitialize, in the order of the tries",
    )
    group: Literal["adaptive"] | Annotated[int, Field(ge=1, le=FILTERS)] = Field(
        "adaptive",
        description="so many filters at once | adaptive: twice as many after a success, half after a failure",
    )
    max_failures: int | None = Field(
        32,
        ge=1,
        le=1_000_000,
        description="in a row, after which no other filter is tried, only layers; null: every one is tried",
    )
    steps: Steps = Field(600, description="training steps of a trial")

    @field_validator("group", mode="before")
    @classmethod
    def adaptive_or_count(cls, group: Any) -> Any:
        if group != "adaptive" and (type(group) is not int or not 1 <= group <= FILTERS):
            raise ValueError(
                f"expected 'adaptive' or a number of filters from 1 to {FILTERS}, not {shown(group)}"
            )
        return group


class LayerRemoval(Section):
    """Trials of whole hidden layers."""

    tries: int = Field(2, ge=0, le=100, description="each from another start; 0: never remove a layer")
    steps: Steps = Field(
        5000, description="training steps of a trial: more, as the network has to find another way"
    )
    learning_rate: Positive = Field(0.01, description="of these trials")


class Limits(Section):
    """No further trial once one of these is reached; `steps` also keeps out trials that would exceed it."""

    decisions: int | None = Field(None, ge=1, le=1_000_000, description="trials")
    steps: Steps | None = Field(11500, description="of training; the last session comes on top")
    seconds: Positive | None = Field(None, description="of training")
    macs_per_pixel: Macs | None = Field(None, description="no trial below this size")


class Minimization(Section):
    """What a trial is, and when it is accepted."""

    removal: Removal = Field(Removal(), description="trials of filters")
    layers: LayerRemoval = Field(LayerRemoval(), description="trials of whole hidden layers")
    last_session_steps: int = Field(
        3500, ge=0, le=STEPS, description="training steps of the session after the last trial; 0: none"
    )
    tolerance: Relative = Field(0.1, description="of the validation score over the reference's, relative")
    near: Relative = Field(
        0.4,
        description="a trial that is not within the tolerance, but within this, trains on for another cycle",
    )
    max_cycles: int = Field(3, ge=1, le=1000, description="of a trial at most")
    acceptance: Acceptance = Field(Acceptance(), description="when a trial is accepted")
    speculative: int = Field(
        1,
        ge=1,
        le=256,
        description="candidates tried at once from the same state, in so many threads; the best is accepted",
    )
    stop_hopeless: bool = Field(
        True, description="end a session early that comes down too slowly to reach the limit"
    )
    limits: Limits = Field(
        Limits(),
        description="no further trial after so many trials, steps, seconds, or at this size; null: no limit",
    )


class Growth(Section):
    """Where and for how long a network grows, and what a growth has to gain."""

    select: str = Field("uniform", description="uniform | widest_gain | gradient: where to grow")
    arguments: dict[str, Any] = Field({}, description="of that function")
    steps: Steps = Field(3000, description="training steps of a trial, which doubles layers or inserts one")
    min_gain: Relative = Field(
        0.003, description="what a growth has to gain of score, for each thousand of what it adds"
    )
    per: Literal["macs_per_pixel", "parameters"] = Field(
        "macs_per_pixel", description="macs_per_pixel | parameters: the unit of what it adds"
    )
    tries: int = Field(3, ge=1, le=100, description="trials that fail, one after another, end the growth")


class Scaling(Section):
    """Whether strategies with `scaling` grow a network, shrink it, or do both, and how far it may grow."""

    mode: Literal["shrink", "grow", "both"] | None = Field(
        None, description="shrink | grow | both; null: both from a small start, else shrink"
    )
    small: Macs = Field(
        1000.0, description="a start of up to so many multiply-accumulates per pixel is a small one"
    )
    max_macs_per_pixel: Positive | None = Field(None, description="no growth beyond these; null: no limit")
    max_parameters: int | None = Field(
        None, ge=1, le=10**9, description="no growth beyond these; null: no limit"
    )
    max_seconds: Positive | None = Field(None, description="seconds of the growth at most; null: no limit")
    max_steps: int = Field(
        40000,
        ge=0,
        le=STEPS,
        description="training steps of growth at most; without growth they add to minimization.limits.steps",
    )

    def mode_from(self, macs_per_pixel: float) -> Literal["shrink", "grow", "both"]:
        """The mode of a start of that size."""
        return self.mode or ("both" if macs_per_pixel <= self.small else "shrink")

    def allows(self, parameters: int, macs_per_pixel: float) -> bool:
        """Whether a network of that size is within the limits."""
        return (self.max_macs_per_pixel is None or macs_per_pixel <= self.max_macs_per_pixel) and (
            self.max_parameters is None or parameters <= self.max_parameters
        )


class Execution(Section):
    """How the work is spread; `engine` and `workers` change no results."""

    engine: Literal["processes", "ray"] = Field(
        "processes", description="processes of this machine | ray: a Ray cluster"
    )
    workers: Few | None = Field(
        None, description="processes side by side; null: as many as fit the cores and the memory"
    )
    threads: Few = Field(
        1, description="of each of them; another number sums in another order, and so gives other networks"
    )
    deterministic: bool = Field(True, description="the same seed gives the same weights, also on a GPU")
    mixed_precision: bool = Field(
        False, description="on a GPU: half precision where it does not change scores"
    )
    xla: bool = Field(False, description="compile training steps by XLA; a CPU takes three times as long")
    blocks: bool = Field(
        True, description="on a CPU: small networks on blocks of pixels, faster and the same to 1e-5"
    )
