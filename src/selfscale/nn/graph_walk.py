"""Walks the configuration of a functional or sequential model from use to use, by public API alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import keras

from selfscale.nn.graph_recording import Path

Arguments = tuple[list[Any], dict[str, Any]]
T = TypeVar("T")


def is_graph(layer: Any) -> bool:
    """Return whether a model is a graph of layers: sequential or functional, with Keras's own `call`."""
    if not isinstance(layer, keras.Model):
        return False
    for cls in type(layer).__mro__:
        if cls.__module__.partition(".")[0] == "keras":
            break
        if "call" in vars(cls) or "__call__" in vars(cls):
            return False
    return isinstance(layer, keras.Sequential) or hasattr(layer, "operations")


def operations_of(model: Any) -> dict[str, Any]:
    """Return the layers and operations of a sequential or functional model by name."""
    every = model.layers if isinstance(model, keras.Sequential) else model.operations
    return {each.name: each for each in every}


def every_operation(model: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield all layers and operations with their paths, those of nested graphs instead of the graphs."""
    for name, each in operations_of(model).items():
        if is_graph(each):
            yield from every_operation(each, (*path, name))
        else:
            yield (*path, name), each


def every_layer(model: Any) -> Iterator[tuple[Path, Any]]:
    """Yield all layers with their paths."""
    return ((p, each) for p, each in every_operation(model) if isinstance(each, keras.layers.Layer))


def configuration(model: Any) -> dict[str, Any]:
    """Return a model's configuration, with the names of all layers, also of those that leave them out."""
    config = model.get_config()
    _name(model, config)
    return config


def entry_at(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the entry of a layer in a model's configuration."""
    entry = {"config": config}
    for name in path:
        entry = next(each for each in entry["config"]["layers"] if each["name"] == name)
    return entry


def _name(model: Any, config: dict[str, Any]) -> None:
    operations = operations_of(model)
    names = iter(operations)
    for entry in config["layers"]:
        if isinstance(model, keras.Sequential):
            entry["name"] = entry["config"]["name"] if entry["class_name"] == "InputLayer" else next(names)
        if is_graph(nested := operations.get(entry["name"])):
            _name(nested, entry["config"])


class Walk(Generic[T]):
    """Passes values of some kind through a model, through nested models once per use.

    Subclasses say what enters (`enter`) and what a layer or operation does to it (`use`).
    """

    def enter(self, entry: dict[str, Any], path: Path, given: T | None) -> T:
        """Return the value behind an input layer; `given` enters a nested model."""
        raise NotImplementedError

    def use(self, operation: Any, entry: dict[str, Any], path: Path, arguments: Arguments) -> list[T]:
        """Return the values of all outputs of a layer or operation."""
        raise NotImplementedError

    def through(self, model: Any, config: dict[str, Any], path: Path, given: list[T] | None) -> list[T]:
        """Return the values of a model's outputs, for the given ones of its inputs."""
        if isinstance(model, keras.Sequential):
            return self._sequential(model, config, path, given)
        entries = {entry["name"]: entry for entry in config["layers"]}
        values: dict[tuple[str, int], list[T]] = {}
        inputs = keras.tree.flatten(map_leaves(config["input_layers"], lambda leaf: leaf[0]))
        for position, name in enumerate(inputs):
            values[name, 0] = [self.enter(entries[name], (*path, name), given[position] if given else None)]
        waiting = [(name, use) for name in entries for use in range(len(entries[name]["inbound_nodes"]))]
        operations = operations_of(model)
        while waiting:
            later = []
            for name, use in waiting:
                node = entries[name]["inbound_nodes"][use]
                if all((leaf[0], leaf[1]) in values for leaf in leaves(node)):
                    arguments = resolved(node, values)
                    values[name, use] = self.step(operations[name], entries[name], (*path, name), arguments)
                else:
                    later.append((name, use))
            if len(later) == len(waiting):
                raise ValueError(f"{model.name}: the uses of {later[0][0]!r} can't be resolved")
            waiting = later

        def output(leaf: list[Any]) -> T:
            return values[leaf[0], output_use(entries, leaf)][leaf[2]]

        return list(keras.tree.flatten(map_leaves(config["output_layers"], output)))

    def _sequential(self, model: Any, config: dict[str, Any], path: Path, given: list[T] | None) -> list[T]:
        operations, values = operations_of(model), given or []
        for entry in config["layers"]:
            name = entry["name"]
            if entry["class_name"] == "InputLayer":
                values = [self.enter(entry, (*path, name), given[0] if given else None)]
            else:
                values = self.step(operations[name], entry, (*path, name), ([values[0]], {}))
        return values

    def step(self, operation: Any, entry: dict[str, Any], path: Path, arguments: Arguments) -> list[T]:
        positional, named = arguments
        if not positional and "inputs" in named:
            positional = [named.pop("inputs")]
        if is_graph(operation) and positional:
            expected = entry["config"].get("input_layers")
            names = [set(each) if isinstance(each, dict) else None for each in (positional[0], expected)]
            if names[0] == names[1]:
                return self.through(operation, entry["config"], path, keras.tree.flatten(positional[0]))
        return self.use(operation, entry, path, (positional, named))


def map_leaves(structure: Any, function: Callable[[list[Any]], Any]) -> Any:
    """Map the `[name, use, output]` leaves of a configuration's inputs or outputs."""
    if isinstance(structure, dict):
        return {key: map_leaves(each, function) for key, each in structure.items()}
    if len(structure) == 3 and isinstance(structure[0], str):
        return function(structure)
    return [map_leaves(each, function) for each in structure]


def output_use(entries: dict[str, dict[str, Any]], leaf: list[Any]) -> int:
    """Return which use an output is of: among outputs, Keras counts a functional model's from 1."""
    return int(leaf[1]) - int("input_layers" in entries[leaf[0]]["config"])


def history(value: Any) -> list[Any] | None:
    """Return `[name, use, output]` of a symbolic tensor in a configuration, None for all else."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        return value["config"]["keras_history"]
    return None


def leaves(value: Any) -> Iterator[list[Any]]:
    """Yield `[name, use, output]` of all symbolic tensors in a node of a configuration."""
    if (leaf := history(value)) is not None:
        yield leaf
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from leaves(each)


def resolved(node: dict[str, Any], values: dict[tuple[str, int], list[Any]]) -> Arguments:
    """Return a node's arguments, with values in place of symbolic tensors."""

    def resolve(value: Any) -> Any:
        if (leaf := history(value)) is not None:
            return values[leaf[0], leaf[1]][leaf[2]]
        if isinstance(value, dict):
            if "class_name" in value and "config" in value:
                return keras.saving.deserialize_keras_object(value)
            return {key: resolve(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [resolve(each) for each in value]
        return value

    return resolve(node["args"]), resolve(node["kwargs"])
