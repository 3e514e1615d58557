"""Sections of the settings of data: where photographs come from, and what networks learn from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, model_serializer, model_validator

from selfscale.config import Section, Seed


class Folder(Section):
    """Any folder of photographs."""

    path: str | None = Field(
        None, description="any folder of photographs, searched recursively; needed with source: folder"
    )


class Voc2012(Section):
    """The VOC2012 archives: local tar files, or the official download."""

    archives: list[str] = Field(
        [], description="local tar files; none: download the official trainval archive"
    )
    url: str = Field(
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        pattern=r"^https?://\S+$",
        description="what is downloaded",
    )
    md5: str = Field(
        "6cd6e144f989b92b3379bac3b3de84fd", pattern=r"^[0-9a-f]{32}$", description="of what is downloaded"
    )


class Shares(Section):
    """Shares of the photographs; they add up to one."""

    train: float = Field(0.45, gt=0, lt=1, description="to train on, and to measure filters on")
    validation: float = Field(0.3, gt=0, lt=1, description="to decide on")
    test: float = Field(0.25, gt=0, lt=1, description="looked at once, at the end")

    @model_validator(mode="after")
    def adds_up(self) -> Shares:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, validation and test must add up to 1, not {total:g}")
        return self


class Data(Section):
    """Where the photographs come from."""

    source: Literal["sample", "folder", "voc2012"] = Field(
        "sample", description="sample: embedded in installed packages | folder | voc2012"
    )
    folder: Folder = Folder()
    voc2012: Voc2012 = Voc2012()
    size: int = Field(256, ge=16, le=8192, description="side of the square crops in pixels")
    split: Shares = Field(Shares(), description="shares of the photographs; they add up to 1")
    split_seed: Seed = Field(
        280, description="spreads the scenes and the textures of the sample over the splits"
    )


class Task(Section):
    """What the network has to imitate, an operator or wanted outputs in files, and the loss of that.

    Or a problem, which brings all of these.
    """

    operator: str | None = Field(None, description="one of the operators below, or `module:function`")
    arguments: dict[str, Any] = Field({}, description="of the operator, or of the problem's function")
    targets: str | None = Field(
        None, description="instead of an operator: a folder of wanted outputs, paired by name"
    )
    problem: str | None = Field(
        None,
        pattern="^[^:]+:[^:]+$",
        description="instead of both: `module:function`, which returns a `selfscale.Problem`",
    )
    loss: Literal["mae", "mse", "soft_f1"] | None = Field(
        None,
        description="what is trained and decided by; soft_f1: of discrete tasks only; a problem has its own",
    )

    @model_validator(mode="after")
    def has_one_teacher(self) -> Task:
        given = [name for name in ("operator", "targets", "problem") if getattr(self, name) is not None]
        if len(given) != 1:
            which = f"not {' and '.join(given)}" if given else "one of them is needed"
            raise ValueError(
                f"name an operator, a folder of wanted outputs as targets, or a problem; {which}"
            )
        if self.targets is not None and self.arguments:
            raise ValueError("arguments are those of an operator; targets have none")
        if self.problem and self.loss:
            raise ValueError("loss is that of an operator or of targets; a problem brings its own")
        if not self.problem and not self.loss:
            raise ValueError("loss: is missing; mae, mse or soft_f1")
        return self

    @model_serializer(mode="wrap")
    def plain(self, handler: Callable[[Task], dict[str, Any]]) -> dict[str, Any]:
        """Without a problem where there is none: records and digests are those of other tasks ever since."""
        found = handler(self)
        return {key: value for key, value in found.items() if key != "problem" or value is not None}
