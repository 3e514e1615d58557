"""Sections of the settings that the library takes: frozen, checked models without any file format.

The description of a key is its meaning in `docs/params.md` and its comment in `params.yaml`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# Upper limits keep a slip of the hand from filling the memory or never ending; no real use comes near.
STEPS = 10_000_000
FILTERS = 1024  # of a layer
Steps = Annotated[int, Field(ge=1, le=STEPS)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
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
    center: bool = Field(
        True, description="first biases that let each hidden filter fire; false: zeros, as in the thesis"
    )


class FirstSession(Section):
    """Short sessions from several starts, then cycles of the best until the validation score stagnates."""

    starts: int = Field(3, ge=1, le=100, description="networks to choose from, each of fresh weights")
    start_steps: Steps = Field(500, description="training steps of each of them, if there are several")
    steps: Steps = Field(500, description="training steps of a cycle of the best one")
    max_cycles: int = Field(3, ge=1, le=1000, description="cycles at most")
    min_gain: float = Field(
        0.1,
        ge=0,
        le=1,
        description="of the validation score, relative, with confidence; two cycles that gain less end it",
    )
    restarts: int = Field(
        3, ge=0, le=100, description="with other starts, when the network dies or has learnt nothing"
    )


class Training(Section):
    """A training session."""

    batch: int = Field(8, ge=1, le=4096, description="crops in a training step")
    crop: int | None = Field(
        64, ge=8, le=8192, description="side of the random crops to train on; null: whole images"
    )
    optimizer: str = Field("soap", description="soap | adam | the name of any other of Keras's own")
    arguments: dict[str, Any] = Field({}, description="of the optimizer")
    learning_rate: Positive = Field(
        0.01,
        description="of the first session, after a linear warm-up; then a cosine decay to zero",
    )
    warmup: float = Field(
        0.1, ge=0, le=1, description="share of a session's steps in which the learning rate rises"
    )
    clip_norm: Positive = Field(
        1.0, description="of all gradients together; longer ones are scaled down to it"
    )
    evaluations: int = Field(4, ge=1, le=10_000, description="per session, on the validation images")
    first: FirstSession = Field(
        FirstSession(),
        description="the long first session: the best of several starts, in cycles until it stagnates",
    )


class Evaluation(Section):
    """How scores are measured."""

    threshold: float = Field(0.5, ge=0, le=1, description="of the output, for F1, precision and recall")
    max_images: int = Field(100, ge=1, le=1_000_000, description="validation images used for decisions")


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
