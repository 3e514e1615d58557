"""The peers in PyTorch: the same network and training, and the pruning loop that a user would write."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch_pruning
from pytorch_optimizer import SOAP
from torch import nn

from selfscale.nn.input_pipeline import Split, draw
from selfscale.nn.optimizers import learning_rates
from selfscale.settings import Settings


class Optimizer(NamedTuple):
    """What a peer trains with: made for its parameters, at these rates, gradients clipped at a norm."""

    make: Callable[..., torch.optim.Optimizer]
    learning_rate: float
    fine_tuning: float
    clip_norm: float


# Adam as version 0.1 of this project had it tuned; SOAP as it has it now.
OPTIMIZERS = {
    "Adam": Optimizer(partial(torch.optim.Adam, eps=1e-7), 0.005, 0.005, 0.1),
    "SOAP": Optimizer(
        partial(SOAP, betas=(0.9, 0.99), weight_decay=0.0, precondition_frequency=5), 0.01, 0.003, 1.0
    ),
}


class Pruned(NamedTuple):
    steps: int
    seconds: float
    macs: float
    validation: float
    test: float


def network(widths: list[int], seed: int, level: float) -> nn.Sequential:
    """As `selfscale.nn.fcn.build` and `calibrate` make it, as far as PyTorch's own functions go."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    inputs = 1
    for filters in (*widths, 1):
        convolution = nn.Conv2d(inputs, filters, 5, padding=2)
        nn.init.trunc_normal_(convolution.weight, std=0.1, a=-0.2, b=0.2)
        nn.init.zeros_(convolution.bias)
        layers += [convolution, nn.ReLU()]
        inputs = filters
    with torch.no_grad():
        layers[-2].weight *= 0.1
        layers[-2].bias.fill_(level)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def as_batch(images: np.ndarray, divisor: float) -> torch.Tensor:
    batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return batch.contiguous(memory_format=torch.channels_last).float() / divisor


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Any, targets: Any, clip: float) -> None:
    optimizer.zero_grad(set_to_none=True)
    nn.functional.l1_loss(model(images), targets).backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()


def session(
    model: nn.Module,
    settings: Settings,
    train: Split,
    steps: int,
    rng: np.random.Generator,
    chosen: Optimizer,
    rate: float,
) -> None:
    """The recipe of our sessions: a fresh optimizer, warm-up and cosine decay, random crops."""
    optimizer = chosen.make(model.parameters(), lr=rate)
    for now in learning_rates(steps, rate, settings.training.warmup):
        for group in optimizer.param_groups:
            group["lr"] = float(now)
        crops = draw(train, (1, settings.training.batch), settings.training.crop, rng)
        images, targets = as_batch(crops.images[0], 255.0), as_batch(crops.targets[0], 1.0)
        step(model, optimizer, images, targets, chosen.clip_norm)


@torch.no_grad()
def mae(model: nn.Module, split: Split) -> float:
    total = 0.0
    for start in range(0, len(split.images), 8):
        part = slice(start, start + 8)
        output = model(as_batch(split.images[part], 255.0))
        total += float((output - as_batch(split.targets[part], 1.0)).abs().mean((1, 2, 3)).sum())
    return total / len(split.images)


def macs(model: nn.Module) -> float:
    return float(sum(layer.weight.numel() for layer in model if isinstance(layer, nn.Conv2d)))


def pruned(
    settings: Settings, train: Split, validation: Split, test: Split, seed: int, chosen: Optimizer
) -> Pruned:
    """The usual loop with Torch-Pruning: one filter less by magnitude, fine-tune, until it is too bad.

    The initial training, its rule for stagnation, the length of a session, the tolerance, and the last
    session are ours. The first network that is not within tolerance ends it, and the one before stays.
    """
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    first, minimization = settings.training.first, settings.minimization
    model = network(settings.network.widths, seed, float(train.targets.mean(dtype=np.float64)))
    steps, best = 0, float("inf")
    for _ in range(first.max_cycles):
        session(model, settings, train, first.steps, rng, chosen, chosen.learning_rate)
        steps += first.steps
        score = mae(model, validation)
        stagnated = score > (1 - first.min_gain) * best
        best = min(best, score)
        if stagnated:
            break
    limit = best * (1 + minimization.tolerance)
    example = torch.zeros(1, 1, 64, 64)
    while True:
        smaller = deepcopy(model)
        hidden = [layer for layer in smaller if isinstance(layer, nn.Conv2d)][:-1]
        total = sum(layer.out_channels for layer in hidden)
        if total == len(hidden):
            break
        pruner = torch_pruning.pruner.BasePruner(
            smaller,
            example,
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=1.01 / total,
            max_pruning_ratio=0.9,
            ignored_layers=[smaller[-2]],
        )
        before = macs(smaller)
        pruner.step()
        if macs(smaller) == before:
            break
        session(smaller, settings, train, minimization.removal.steps, rng, chosen, chosen.fine_tuning)
        steps += minimization.removal.steps
        if mae(smaller, validation) > limit:
            break
        model = smaller
    last = deepcopy(model)
    session(last, settings, train, minimization.last_session_steps, rng, chosen, chosen.fine_tuning)
    steps += minimization.last_session_steps
    kept = min(model, last, key=lambda found: mae(found, validation))
    taken = time.perf_counter() - started
    return Pruned(steps, taken, macs(kept), mae(kept, validation), mae(kept, test))
