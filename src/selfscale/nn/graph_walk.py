"""Walks a model's configuration from use to use, and has each layer's rule record its channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras

from selfscale.nn.graph_operations import OPERATIONS
from selfscale.nn.graph_recording import RULES, OpaqueError, Path, Recording, Rule, Tensor, Use

UNKNOWN = 64  # what an axis of unknown size counts as, in the costs
Key = tuple[str, int]  # name of an operation, and which of its uses


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


def every_layer(model: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield all layers with their paths, those of nested graphs instead of the graphs."""
    for name, each in operations_of(model).items():
        if is_graph(each):
            yield from every_layer(each, (*path, name))
        elif isinstance(each, keras.layers.Layer):
            yield (*path, name), each


def map_leaves(structure: Any, function: Callable[[list[Any]], Any]) -> Any:
    """Map the `[name, use, output]` leaves of a configuration's inputs or outputs."""
    if isinstance(structure, dict):
        return {key: map_leaves(each, function) for key, each in structure.items()}
    if len(structure) == 3 and isinstance(structure[0], str):
        return function(structure)
    return [map_leaves(each, function) for each in structure]


def history(value: Any) -> list[Any] | None:
    """Return `[name, use, output]` of a symbolic tensor in a configuration, None for all else."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        return list(value["config"]["keras_history"])
    return None


def uses_before_outputs(config: dict[str, Any]) -> int:
    """Return how far Keras counts the uses of a nested functional model from 1 instead of 0."""
    return int("input_layers" in config["config"])


class Walk:
    """Walks a model, and nested ones per use, with a recording for all of it."""

    def __init__(self, model: keras.Model) -> None:
        self.recording = Recording()
        owners: dict[int, list[Path]] = {}
        for path, layer in every_layer(model):
            for variable in layer.weights:
                owners.setdefault(id(variable), []).append(path)
        self.tied = {path for paths in owners.values() if len(paths) > 1 for path in paths}
        for tensor in self.graph(model, model.get_config(), (), None):
            self.recording.pin(tensor.ids, "an output of the model")

    def graph(
        self, model: Any, config: dict[str, Any], path: Path, inputs: list[Tensor] | None
    ) -> list[Tensor]:
        if isinstance(model, keras.Sequential):
            return self._sequential(model, config, path, inputs)
        values: dict[Key, list[Tensor]] = {}
        entries = {entry["name"]: entry for entry in config["layers"]}
        names = keras.tree.flatten(map_leaves(config["input_layers"], lambda leaf: leaf[0]))
        for position, name in enumerate(names):
            given = inputs[position] if inputs is not None else None
            values[name, 0] = [self._input(entries[name], (*path, name), given)]
        waiting = [
            (entry, use, node)
            for entry in config["layers"]
            for use, node in enumerate(entry["inbound_nodes"])
        ]
        operations = operations_of(model)
        while waiting:
            later = []
            for entry, use, node in waiting:
                if not all((leaf[0], leaf[1]) in values for leaf in leaves(node)):
                    later.append((entry, use, node))
                    continue
                operation, name = operations[entry["name"]], entry["name"]
                values[name, use] = self._use(operation, entry, (*path, name), arguments(node, values))
            if len(later) == len(waiting):
                raise ValueError(f"{model.name}: the uses of {later[0][0]['name']!r} can't be resolved")
            waiting = later

        def output(leaf: list[Any]) -> Tensor:
            return values[leaf[0], leaf[1] - uses_before_outputs(entries[leaf[0]])][leaf[2]]

        return list(keras.tree.flatten(map_leaves(config["output_layers"], output)))

    def _sequential(
        self, model: Any, config: dict[str, Any], path: Path, inputs: list[Tensor] | None
    ) -> list[Tensor]:
        operations, tensors = operations_of(model), inputs or []
        for entry in config["layers"]:
            name = entry["config"]["name"]
            if entry["class_name"] == "InputLayer":
                tensors = [self._input(entry, (*path, name), tensors[0] if inputs else None)]
                if inputs and tensors[0].ids is not None:
                    keys = ("build_input_shape", len(tensors[0].shape) - 1)
                    self.recording.setting(path, keys, tensors[0].ids)
            else:
                tensors = self._use(operations[name], entry, (*path, name), ([tensors[0]], {}))
        return tensors

    def _input(self, entry: dict[str, Any], path: Path, given: Tensor | None) -> Tensor:
        """Return the tensor of an input layer: the model's own is pinned, a nested one's is the given."""
        shape = tuple(entry["config"]["batch_shape"])
        if given is None:
            known = (shape[0], *(UNKNOWN if size is None else size for size in shape[1:]))
            return self._pinned(known, entry["config"]["dtype"], "an input of the model", shape)
        if given.ids is not None and shape[-1:] != (None,):
            self.recording.setting(path, ("batch_shape", len(shape) - 1), given.ids)
        return given

    def _pinned(
        self, shape: tuple[int | None, ...], dtype: str, reason: str, declared: tuple[int | None, ...] = ()
    ) -> Tensor:
        last = (declared or shape or (None,))[-1]
        ids = None if len(shape) < 2 or last is None else self.recording.fresh(last)
        self.recording.pin(ids, reason)
        return Tensor(shape, dtype, ids)

    def _use(
        self, operation: Any, entry: dict[str, Any], path: Path, args: tuple[list[Any], dict[str, Any]]
    ) -> list[Tensor]:
        inputs = [each for each in keras.tree.flatten(args) if isinstance(each, Tensor)]
        if is_graph(operation) and not any(isinstance(each, dict) for each in args[0]):
            return self.graph(operation, entry["config"], path, inputs)
        specs = output_specs(operation, args)
        config = entry["config"] if isinstance(entry["config"], dict) else {}
        use = Use(path, operation, config, inputs, specs[0], args, self.recording)
        try:
            ids = self._rule(operation, path, args)(use)
            if len(specs) != 1 or len(ids) != specs[0].shape[-1]:
                raise OpaqueError("its rule does not fit its output")
            self._check_weights(operation, path)
        except OpaqueError as error:
            return self._opaque(use, specs, str(error))
        if getattr(operation, "activity_regularizer", None) is not None:
            self.recording.pin(ids, f"activity regularizer of {path[-1]!r}")
        return [Tensor(specs[0].shape, specs[0].dtype, ids)]

    def _rule(self, operation: Any, path: Path, args: tuple[list[Any], dict[str, Any]]) -> Rule:
        rule = RULES.get(type(operation))
        if rule is None and type(operation).__module__.startswith("keras.src.ops."):
            rule = OPERATIONS.get(type(operation).__name__)
        elif any(isinstance(each, Tensor) for each in keras.tree.flatten(args[1])):
            raise OpaqueError("it is called with a tensor by keyword")
        if rule is None:
            raise OpaqueError("no rule for its class")
        if path in self.tied:
            raise OpaqueError("it shares its weights with another layer")
        return rule

    def _check_weights(self, operation: Any, path: Path) -> None:
        known = {id(getattr(operation, weight)) for layer, weight in self.recording.shapes if layer == path}
        if any(id(variable) not in known for variable in getattr(operation, "weights", ())):
            raise OpaqueError("it has weights that its rule does not know")

    def _opaque(self, use: Use, specs: list[Tensor], why: str) -> list[Tensor]:
        """Pin all that a layer reads and writes."""
        kind = f"{use.path[-1]!r} ({type(use.layer).__name__}): {why}"
        for tensor in use.inputs:
            self.recording.pin(tensor.ids, f"read by {kind}")
        self.recording.pin(self.recording.produced.get(use.path), f"written by {kind}")
        for (path, _), axes in self.recording.weights.items():
            if path == use.path:
                for _, ids in axes.values():
                    self.recording.pin(ids, f"weights of {kind}")
        kernels = sum(math.prod(v.shape) for v in getattr(use.layer, "weights", ()) if len(v.shape) > 1)
        positions = math.prod(size or 1 for size in specs[0].shape[1:-1]) if specs else 1
        self.recording.fixed_products += kernels * positions
        return [self._pinned(spec.shape, spec.dtype, f"written by {kind}") for spec in specs]


def leaves(value: Any) -> Iterator[list[Any]]:
    """Yield `[name, use, output]` of all symbolic tensors in a node of a configuration."""
    if (leaf := history(value)) is not None:
        yield leaf
    elif isinstance(value, dict):
        for each in value.values():
            yield from leaves(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from leaves(each)


def arguments(node: dict[str, Any], values: dict[Key, list[Tensor]]) -> tuple[list[Any], dict[str, Any]]:
    """Return a node's arguments, with `Tensor` in place of symbolic tensors."""

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

    return list(resolve(node["args"])), dict(resolve(node["kwargs"]))


def output_specs(operation: Any, args: tuple[list[Any], dict[str, Any]]) -> list[Tensor]:
    """Return shapes and types of an operation's outputs."""

    def symbolic(value: Any) -> Any:
        return keras.KerasTensor(value.shape, value.dtype) if isinstance(value, Tensor) else value

    positional, named = keras.tree.map_structure(symbolic, args)
    spec = operation.compute_output_spec(*positional, **named)
    return [
        Tensor(tuple(each.shape), str(each.dtype), None)
        for each in keras.tree.flatten(spec)
        if each is not None
    ]
