"""Torch-Pruning on a ResNet-20: its progressive pruning, then fine-tuning, as its repository does both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy

import keras
import numpy as np
import torch
import torch_pruning
from torch import nn

# reproduce/main.py of Torch-Pruning: steps of pruning, then SGD of a rate that falls twice.
PRUNING_STEPS = 400
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, MILESTONES = 0.01, 0.9, 5e-4, (0.6, 0.8)
TAYLOR_BATCHES = 10  # examples/transformers/prune_timm_vit.py

IMPORTANCES = {
    "group norm": torch_pruning.importance.GroupMagnitudeImportance,
    "Taylor": torch_pruning.importance.GroupTaylorImportance,
}
Arrays = tuple[np.ndarray, np.ndarray]  # images (N, H, W, 1) in [0, 1], and classes


class Block(nn.Module):
    def __init__(self, inputs: int, filters: int, strides: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, filters, 3, strides, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(filters)
        self.second = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(filters)
        self.strided = strides > 1
        if self.strided:
            self.shortcut = nn.Conv2d(inputs, filters, 1, strides, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(filters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first_norm(self.first(x)))
        shortcut = self.shortcut_norm(self.shortcut(x)) if self.strided else x
        return torch.relu(self.second_norm(self.second(y)) + shortcut)


class ResNet20(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        inputs = 16
        for stage, filters in enumerate((16, 32, 64)):
            for number in range(3):
                block = Block(inputs, filters, 2 if stage and not number else 1)
                self.add_module(f"block{stage}{number}", block)
                inputs = filters
        self.classes = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        for block in self.children():
            if isinstance(block, Block):
                x = block(x)
        return self.classes(x.mean((2, 3)))


def from_keras(model: keras.Model) -> ResNet20:
    """Return the same network, with the weights of `selfscale`'s initial one."""
    network = ResNet20().to(memory_format=torch.channels_last)
    with torch.no_grad():
        for path, module in network.named_modules():
            if not list(module.parameters(recurse=False)):
                continue
            values = [torch.from_numpy(v) for v in model.get_layer(path.replace(".", "_")).get_weights()]
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(values[0].permute(3, 2, 0, 1))
            elif isinstance(module, nn.Linear):
                module.weight.copy_(values[0].T)
                module.bias.copy_(values[1])
            else:
                targets = (module.weight, module.bias, module.running_mean, module.running_var)
                for target, value in zip(targets, values, strict=True):
                    target.copy_(value)
    return network.eval()


def as_tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def batches(data: Arrays, size: int, rng: np.random.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    images, classes = data
    while True:
        order = rng.permutation(len(images))
        for start in range(0, len(images), size):
            part = order[start : start + size]
            yield as_tensor(images[part]), torch.from_numpy(classes[part].astype(np.int64))


@torch.no_grad()
def outputs(network: nn.Module, images: np.ndarray) -> np.ndarray:
    network.eval()
    parts = [network(as_tensor(images[i : i + 500])).numpy() for i in range(0, len(images), 500)]
    return np.concatenate(parts)


def accuracy(network: nn.Module, data: Arrays) -> float:
    return float((outputs(network, data[0]).argmax(axis=1) == data[1]).mean())


def macs(network: nn.Module, example: torch.Tensor) -> int:
    """Return the multiply-accumulates of convolutions and dense layers, as `selfscale` counts them."""
    total = 0

    def count(module: nn.Module, inputs: Sequence[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        total += module.weight[0].numel() * output[0].numel()

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    return total


def pruned(
    network: ResNet20, importance: str, shares: Sequence[float], data: Arrays, batch: int, seed: int
) -> Iterator[ResNet20]:
    """Yield the network at each share of the multiply-accumulates, the largest first, not fine-tuned."""
    network, rng = deepcopy(network).eval(), np.random.default_rng((seed, 1))
    example = as_tensor(data[0][:1])
    before = macs(network, example)
    pruner = torch_pruning.pruner.BasePruner(
        network,
        example,
        importance=IMPORTANCES[importance](),
        global_pruning=True,
        pruning_ratio=1.0,
        iterative_steps=PRUNING_STEPS,
        ignored_layers=[network.classes],
    )
    drawn = batches(data, batch, rng)
    for share in shares:
        while macs(network, example) > share * before and pruner.current_step < PRUNING_STEPS:
            if importance == "Taylor":
                network.zero_grad()
                for _ in range(TAYLOR_BATCHES):
                    images, classes = next(drawn)
                    nn.functional.cross_entropy(network(images), classes).backward()
            pruner.step()
        yield deepcopy(network)


def finetune(network: ResNet20, data: Arrays, steps: int, batch: int, seed: int) -> ResNet20:
    """Train as Torch-Pruning's repository does after pruning."""
    network.zero_grad()
    network.train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    falls = [int(steps * part) for part in MILESTONES]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, falls)
    drawn = batches(data, batch, np.random.default_rng((seed, 2)))
    for _ in range(steps):
        images, classes = next(drawn)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), classes).backward()
        optimizer.step()
        schedule.step()
    return network.eval()
