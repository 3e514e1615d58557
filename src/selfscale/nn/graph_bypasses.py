"""What may be removed whole from a model: residual branches, and layers of as many channels as they read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import keras
import numpy as np

from selfscale.nn.graph_recording import Path, Recording
from selfscale.nn.graph_walk import (
    Arguments,
    Walk,
    configuration,
    every_layer,
    history,
    is_graph,
    leaves,
    map_leaves,
    operations_of,
    output_use,
)

Node = tuple[str, int]
MASKING = keras.layers.Masking


@dataclass(frozen=True, eq=False)
class Bypass:
    """A removal that passes an input of a layer on as its output.

    Of a residual addition it removes the branch, of any other layer the layer itself.

    Attributes:
        name: Path of the addition, or of the layer.
        at: The same as a tuple of names.
        operand: Which of its inputs becomes the output.
        layers: Paths of what is removed, operations and nested models included.
        channels: Numbers of the channels of that input and of the output.
    """

    name: str
    at: Path
    operand: int
    layers: tuple[Path, ...]
    channels: tuple[np.ndarray, np.ndarray]


def find_bypasses(
    model: Any, config: dict[str, Any], recording: Recording, path: Path = ()
) -> Iterator[Bypass]:
    """Yield the residual branches and layers of a model, and of those nested in it, that may be removed."""
    operations = operations_of(model)
    if any(getattr(each, "mask_zero", False) or isinstance(each, MASKING) for _, each in every_layer(model)):
        return  # around a bypass, masks of time steps would go another way
    for entry in config["layers"]:
        name = entry["name"]
        if name in operations and is_graph(operations[name]):
            yield from find_bypasses(operations[name], entry["config"], recording, (*path, name))
    wiring = Wiring(config)
    for name, operation in operations.items():
        at = (*path, name)
        uses = recording.passed.get(at, [])
        inputs = wiring.inputs.get((name, 0), [])
        if not uses or len(wiring.uses(name)) != 1 or name in wiring.outputs:
            continue
        tensors, output = uses[0]
        if any(tensor.shape != output.shape for tensor in tensors) or len(tensors) != len(inputs):
            continue
        addition = type(operation).__name__ == "Add" and len(inputs) == 2
        if not addition and (len(inputs) != 1 or at not in recording.produced):
            continue
        removed = [wiring.without(name, operand) for operand in range(len(inputs))]
        operand = max(range(len(inputs)), key=lambda each: len(removed[each] or ()))
        layers = tuple((*path, each) for each in removed[operand] or () if each != name or not addition)
        channels = tensors[operand].ids, output.ids
        weights = any(getattr(operations.get(each[-1]), "weights", None) for each in layers)
        if weights and channels[0] is not None and channels[1] is not None:
            yield Bypass("/".join(at), at, operand, layers, (channels[0], channels[1]))


class Wiring:
    """Which uses of layers read which, in one level of a model's configuration."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.inputs: dict[Node, list[Node]] = {}
        entries = {entry["name"]: entry for entry in config["layers"]}
        if "input_layers" not in config:  # a chain
            names = list(entries)
            self.inputs = {(b, 0): [(a, 0)] for a, b in pairwise(names)}
            self.inputs[names[0], 0] = []
            self.outputs, self.sources = {names[-1]}, {names[0]}
            self.ends = [(names[-1], 0)]
            return
        for name, entry in entries.items():
            for use, node in enumerate(entry["inbound_nodes"]):
                self.inputs[name, use] = [(leaf[0], leaf[1]) for leaf in leaves(node)]
            if not entry["inbound_nodes"]:
                self.inputs[name, 0] = []
        ends = keras.tree.flatten(
            map_leaves(config["output_layers"], lambda leaf: f"{output_use(entries, leaf)}/{leaf[0]}")
        )
        self.ends = [(end.partition("/")[2], int(end.partition("/")[0])) for end in ends]
        self.outputs = {name for name, _ in self.ends}
        self.sources = set(keras.tree.flatten(map_leaves(config["input_layers"], lambda leaf: leaf[0])))

    def uses(self, name: str) -> list[Node]:
        return [node for node in self.inputs if node[0] == name]

    def without(self, name: str, operand: int) -> list[str] | None:
        """Return the layers that nothing needs once a layer's output is that operand.

        None if an input of the model or one of several uses of a layer would go.
        """
        node = (name, 0)
        needed: set[Node] = set()
        waiting = list(self.ends)
        while waiting:
            each = waiting.pop()
            if each not in needed:
                needed.add(each)
                waiting += [self.inputs[each][operand]] if each == node else self.inputs[each]
        gone = {each[0] for each in self.inputs.keys() - needed} | {name}
        if gone & self.sources or gone & ({each[0] for each in needed} - {name}):
            return None
        return [each for each in dict.fromkeys(node[0] for node in self.inputs) if each in gone]


def bypassed(config: dict[str, Any], bypasses: Sequence[Bypass]) -> None:
    """Edit a model's configuration: without what the bypasses remove."""
    for bypass in bypasses:
        place = config
        for name in bypass.at[:-1]:
            place = next(each for each in place["layers"] if each["name"] == name)["config"]
        entry = next((each for each in place["layers"] if each["name"] == bypass.at[-1]), None)
        if entry is None:  # in a branch that is gone
            continue
        if "input_layers" in place:
            operand = list(leaves(entry["inbound_nodes"]))[bypass.operand]
            for other in place["layers"]:
                _redirect(other["inbound_nodes"], bypass.at[-1], operand)
        gone = {path[-1] for path in bypass.layers} | {bypass.at[-1]}
        place["layers"] = [each for each in place["layers"] if each["name"] not in gone]


def _redirect(value: Any, name: str, operand: list[Any]) -> None:
    if (leaf := history(value)) is not None:
        if leaf[0] == name:
            value["config"]["keras_history"] = operand
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            _redirect(each, name, operand)


class Bypassed(Walk[Any]):
    """Computes a model's outputs as if the bypasses were in place, from all of its layers."""

    def __init__(self, bypasses: Sequence[Bypass]) -> None:
        self.operands = {bypass.at: bypass.operand for bypass in bypasses}

    def __call__(self, model: keras.Model, inputs: Any) -> list[Any]:
        return self.through(model, configuration(model), (), keras.tree.flatten(inputs))

    def enter(self, entry: dict[str, Any], path: Path, given: Any) -> Any:
        return keras.ops.convert_to_tensor(given)

    def use(self, operation: Any, entry: dict[str, Any], path: Path, arguments: Arguments) -> list[Any]:
        if path in self.operands:
            return [keras.tree.flatten(arguments[0])[self.operands[path]]]
        positional, named = arguments
        return list(keras.tree.flatten(operation(*positional, **named)))
