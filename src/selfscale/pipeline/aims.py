"""What a minimization aims at: whether it grows first, how far it shrinks, its target and evidence."""

from __future__ import annotations

from selfscale.errors import UserError
from selfscale.nn.fcn import build, size
from selfscale.nn.losses import without_skill
from selfscale.nn.trainer import Trainer
from selfscale.paths import Job
from selfscale.search.acceptance import reaches_target
from selfscale.search.growth import GROWTH_STRATEGIES
from selfscale.search.growth_trials import Growing
from selfscale.search_config import Minimization
from selfscale.settings import Settings


def growing_of(settings: Settings, job: Job) -> Growing | None:
    """How the minimization grows its network first; None if it does not.

    Raises:
        UserError: the start is not within the limits of growth.
    """
    scaling, growth = settings.scaling, settings.growth
    chosen = settings.starting_from(job.start).network
    start = size(build(chosen.widths, kernel=chosen.kernel))
    mode = scaling.mode_from(start.macs_per_pixel)
    targeted = settings.minimization.target is not None
    if not targeted and (not settings.strategies[job.strategy].scaling or mode == "shrink"):
        return None
    if not scaling.allows(*start):
        if targeted:
            return None
        raise UserError(
            f"scaling: the start has {start.parameters} parameters and {start.macs_per_pixel:g} "
            "multiply-accumulates per pixel, which max_parameters or max_macs_per_pixel forbids; raise "
            "it, or start from fewer filters"
        )
    select = GROWTH_STRATEGIES.bind(growth.select, growth.arguments, "growth")
    return Growing(growth, scaling, select, targeted or mode == "both")


def minimization_of(settings: Settings, job: Job, growing: Growing | None) -> Minimization:
    """How it removes: a scaling strategy that does not grow may take as many steps more as growth might."""
    chosen = settings.minimization
    if growing or not settings.strategies[job.strategy].scaling or chosen.limits.steps is None:
        return chosen
    steps = chosen.limits.steps + settings.scaling.max_steps
    return chosen.model_copy(update={"limits": chosen.limits.model_copy(update={"steps": steps})})


def check_target(trainer: Trainer, settings: Minimization) -> None:
    """Raise UserError for a target that the same output everywhere reaches."""
    if settings.target is None:
        return
    constant = without_skill(trainer.loss, trainer.validation.targets)
    if settings.target >= constant:
        raise UserError(
            f"minimization.target: {settings.target:g} is no better than the same output everywhere, which "
            f"has {constant:.4g}; lower it"
        )


def check_evidence(trainer: Trainer, settings: Minimization) -> None:
    """Raise UserError for too few validation photographs to accept anything by."""
    if settings.acceptance.rule == "non_inferiority" and len(set(trainer.validation.photograph)) < 2:
        raise UserError(
            "data.split.validation: one photograph shows nothing with confidence: no trial would be "
            "accepted; give more photographs, a larger share, or minimization.acceptance.rule: threshold"
        )


def check_reached(trainer: Trainer, job: Job, settings: Minimization) -> None:
    """Raise UserError if the network that is left does not reach the target with confidence."""
    if settings.target is None:
        return
    found = trainer.evaluator(trainer.validation, (trainer.loss,))
    if not reaches_target(settings, found.sums[trainer.loss]):
        score = found.score(trainer.loss)
        raise UserError(
            f"minimization.target: {settings.target:g} was not reached with confidence: the best network "
            f"found has {score:.4g} ({score / settings.target - 1:+.1%}) on the validation images, and is in "
            f"{job.output}; raise the target, scaling.max_steps or growth.steps"
        )
