"""Sections of the settings of the search: what a trial is, when it is accepted, how a network grows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from selfscale.config import FILTERS, STEPS, Macs, Positive, Relative, Section, Steps
from selfscale.errors import shown


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
        8,
        ge=1,
        le=1_000_000,
        description="in a row, after which no other filter is tried, only layers; null: every one is tried",
    )
    steps: Steps = Field(400, description="training steps of a trial")
    refit: bool = Field(
        True, description="fit what reads removed filters to its former output, where that lowers the loss"
    )
    sessions: Literal["needed", "always"] = Field(
        "needed",
        description="needed: none for a trial that is well within the tolerance before it | always",
    )

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
        2000, description="training steps of a trial: more, as the network has to find another way"
    )
    learning_rate: Positive = Field(0.01, description="of these trials")


class Limits(Section):
    """No further trial once one of these is reached; `steps` also keeps out trials that would exceed it."""

    decisions: int | None = Field(None, ge=1, le=1_000_000, description="trials")
    steps: Steps | None = Field(4500, description="of training; the last session comes on top")
    seconds: Positive | None = Field(None, description="of training")
    macs_per_pixel: Macs | None = Field(None, description="no trial below this size")


class Minimization(Section):
    """What a trial is, and when it is accepted."""

    removal: Removal = Field(Removal(), description="trials of filters")
    layers: LayerRemoval = Field(LayerRemoval(), description="trials of whole hidden layers")
    learning_rate: Positive = Field(
        0.003,
        description="of the trials of filters and the last session: a high one destroys what was learnt",
    )
    last_session_steps: int = Field(
        1500, ge=0, le=STEPS, description="training steps of the session after the last trial; 0: none"
    )
    tolerance: Relative = Field(0.1, description="of the validation score over the reference's, relative")
    target: Positive | None = Field(
        None,
        description="in place of the tolerance, a validation score that is enough, e.g. 0.005; a network "
        "that has not reached it grows first",
    )
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
    frontier: bool = Field(
        True, description="go on below the tolerance with the steps that are left, for the curve only"
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
    learning_rate: Positive = Field(0.01, description="of these trials")
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
        20000,
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
