"""Walks a model with channels for values, and has each layer's rule record what happens to them."""

from __future__ import annotations

import math
from typing import Any

import keras

from selfscale.nn import graph_sequences  # noqa: F401, which registers its rules
from selfscale.nn.graph_operations import OPERATIONS
from selfscale.nn.graph_recording import (
    BY_KEYWORD,
    RULES,
    OpaqueError,
    Path,
    Recording,
    Rule,
    Tensor,
    Use,
    weight_of,
)
from selfscale.nn.graph_walk import Arguments, Walk, configuration, every_layer, every_operation, is_graph

UNKNOWN = 64  # what an axis of unknown size counts as, in the costs


def check(model: Any, trust_lambda: bool) -> None:
    """Raise ValueError, of one line, if a model can't be traced and rebuilt."""
    if keras.config.backend() != "tensorflow":
        raise ValueError(f"Keras runs on {keras.config.backend()}: set KERAS_BACKEND=tensorflow")
    name = getattr(model, "name", type(model).__name__)
    if not is_graph(model):
        raise ValueError(
            f"{name} is a subclassed model, whose layers are no graph: build it as a functional model, "
            "keras.Model(inputs, outputs)"
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(f"{name} is not built yet: let it begin with keras.Input(shape)")
    for path, layer in every_operation(model):
        place, kind = "/".join(path), type(layer)
        try:
            config = layer.get_config()
            code = isinstance(layer, keras.layers.Lambda) or _has_code(config)
            if not code and kind.__module__.partition(".")[0] != "keras":
                kind.from_config(config)
        except Exception as error:  # whatever a layer of someone's raises
            line = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"{place} ({kind.__name__}) can't be rebuilt from its configuration: {line}"
            ) from error
        if code and not trust_lambda:
            raise ValueError(f"{place} is a Lambda or holds one: trust_lambda=True, if its code may be run")
        if config.get("data_format") == "channels_first":
            raise ValueError(f"{place} has data_format='channels_first': only 'channels_last' is supported")


def _has_code(config: Any) -> bool:
    """Return whether Python code is in a configuration, for example of a Lambda in a wrapper."""
    if isinstance(config, dict):
        named = config.get("class_name") in ("Lambda", "__lambda__")
        return named or any(_has_code(each) for each in config.values())
    return isinstance(config, list | tuple) and any(_has_code(each) for each in config)


class Tracing(Walk[Tensor]):
    """Records the channels of a model."""

    def __init__(self, model: keras.Model) -> None:
        self.recording = Recording()
        owners: dict[int, list[Path]] = {}
        for path, layer in every_layer(model):
            for variable in layer.weights:
                owners.setdefault(id(variable), []).append(path)
        self.tied = {path for paths in owners.values() if len(paths) > 1 for path in paths}
        for tensor in self.through(model, configuration(model), (), None):
            self.recording.pin(tensor.ids, "an output of the model")

    def enter(self, entry: dict[str, Any], path: Path, given: Tensor | None) -> Tensor:
        """Pin the model's own inputs; the shape of a nested model's input goes with what it is given."""
        shape = tuple(entry["config"]["batch_shape"])
        if given is None:
            known = (shape[0], *(UNKNOWN if size is None else size for size in shape[1:]))
            tensor = self._pinned(known, entry["config"]["dtype"], "an input of the model")
            return Tensor(known, tensor.dtype, None) if shape[-1:] == (None,) else tensor
        if given.ids is not None and shape[-1:] != (None,):
            self.recording.setting(path, ("batch_shape", len(shape) - 1), given.ids)
        return given

    def step(self, operation: Any, entry: dict[str, Any], path: Path, arguments: Arguments) -> list[Tensor]:
        if isinstance(operation, keras.Sequential) and (shape := entry["config"].get("build_input_shape")):
            ids = tensors(arguments)[0].ids
            if ids is not None and len(shape) > 1 and shape[-1] is not None:
                self.recording.setting(path, ("build_input_shape", len(shape) - 1), ids)
        if isinstance(operation, keras.layers.Layer):
            for each in tensors(arguments[1].pop("mask", None)):
                self.recording.pin(each.ids, f"a mask of {path[-1]!r}")
        return super().step(operation, entry, path, arguments)

    def use(self, operation: Any, entry: dict[str, Any], path: Path, arguments: Arguments) -> list[Tensor]:
        specs = output_specs(operation, arguments)
        config = entry["config"] if isinstance(entry["config"], dict) else {}
        use = Use(path, operation, config, tensors(arguments), specs[0], arguments, self.recording)
        try:
            ids = self._rule(operation, path, arguments)(use)
            if len(specs) != 1 or len(ids) != specs[0].shape[-1]:
                raise OpaqueError("its rule does not fit its output")
            self._check_weights(operation, path)
        except OpaqueError as error:
            return self._opaque(use, specs, str(error))
        if getattr(operation, "activity_regularizer", None) is not None:
            self.recording.pin(ids, f"activity regularizer of {path[-1]!r}")
        output = Tensor(specs[0].shape, specs[0].dtype, ids)
        self.recording.passed.setdefault(path, []).append((use.inputs, output))
        return [output]

    def _rule(self, operation: Any, path: Path, arguments: Arguments) -> Rule:
        rule = RULES.get(type(operation))
        if rule is None and type(operation).__module__.startswith("keras.src.ops."):
            rule = OPERATIONS.get(type(operation).__name__)
        elif tensors(arguments[1]) and type(operation) not in BY_KEYWORD:
            raise OpaqueError("it is called with a tensor by keyword")
        if rule is None:
            raise OpaqueError("no rule for its class")
        if path in self.tied:
            raise OpaqueError("it shares its weights with another layer")
        return rule

    def _check_weights(self, operation: Any, path: Path) -> None:
        known = {id(weight_of(operation, weight)) for layer, weight in self.recording.shapes if layer == path}
        if any(id(variable) not in known for variable in getattr(operation, "weights", ())):
            raise OpaqueError("it has weights that its rule does not know")

    def _opaque(self, use: Use, specs: list[Tensor], why: str) -> list[Tensor]:
        """Pin all that a layer reads and writes."""
        kind = f"{use.path[-1]!r} ({type(use.layer).__name__}): {why}"
        for tensor in use.inputs:
            self.recording.pin(tensor.ids, f"read by {kind}")
        self.recording.pin(self.recording.produced.get(use.path), f"written by {kind}")
        for key in [key for key in self.recording.weights if key[0] == use.path]:
            for _, ids in self.recording.weights.pop(key).values():
                self.recording.pin(ids, f"weights of {kind}")
        for key in [key for key in self.recording.shapes if key[0] == use.path]:
            del self.recording.shapes[key]
        self.recording.products = [each for each in self.recording.products if each[0] != use.path]
        self.recording.pairings = [each for each in self.recording.pairings if each[0] != use.path]
        kernels = sum(math.prod(v.shape) for v in getattr(use.layer, "weights", ()) if len(v.shape) > 1)
        positions = math.prod(size or 1 for size in specs[0].shape[1:-1]) if specs else 1
        self.recording.opaque[use.path] = self.recording.opaque.get(use.path, 0) + kernels * positions
        return [self._pinned(spec.shape, spec.dtype, f"written by {kind}") for spec in specs]

    def _pinned(self, shape: tuple[int | None, ...], dtype: str, reason: str) -> Tensor:
        last = shape[-1] if len(shape) > 1 else None
        ids = None if last is None else self.recording.fresh(last)
        self.recording.pin(ids, reason)
        return Tensor(shape, dtype, ids)


def tensors(structure: Any) -> list[Tensor]:
    return [each for each in keras.tree.flatten(structure) if isinstance(each, Tensor)]


def output_specs(operation: Any, arguments: Arguments) -> list[Tensor]:
    """Return shapes and types of an operation's outputs."""

    def symbolic(value: Any) -> Any:
        return keras.KerasTensor(value.shape, value.dtype) if isinstance(value, Tensor) else value

    positional, named = keras.tree.map_structure(symbolic, arguments)
    try:
        outputs = operation.compute_output_spec(*positional, **named)
    except Exception:  # of a shape with `UNKNOWN` in it; whatever someone's layer raises
        outputs = operation.output
    return [
        Tensor(tuple(each.shape), str(each.dtype), None)
        for each in keras.tree.flatten(outputs)
        if each is not None
    ]
