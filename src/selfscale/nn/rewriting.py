"""Rewrites a model's configuration: compact, without branches; a plain Keras model, checked each time."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from selfscale.nn.graph import ChannelGraph, Keep
from selfscale.nn.graph_bypasses import Bypass, Bypassed, bypassed
from selfscale.nn.graph_recording import Path, weight_of
from selfscale.nn.graph_walk import configuration, entry_at, every_layer

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
# Rounding of layers that compute in half precision, accumulated over a deep network.
HALF_TOLERANCES = {"float16": 2e-2, "bfloat16": 1e-1}
EXAMPLES, UNKNOWN_SIZE = 2, 64
WRAPPED = ("layer", "backward_layer")  # where wrappers hold layers in their configuration


def rewrite(
    model: keras.Model, graph: ChannelGraph, keep: Keep, *, without: Sequence[Bypass] = (), check: bool = True
) -> keras.Model:
    """Return a plain Keras model without masked channels, branches or layers.

    It has the same names and types of inputs and outputs, is not compiled, and can be saved and loaded
    as any other. The masked model is the given one with zeros in all weights that read a masked channel.

    Args:
        model: Model that `graph` was traced from.
        graph: Its channels.
        keep: Per group, which channels stay; all of the groups that are left out.
        without: Some of `graph.branches` and `graph.layers`.
        check: Whether it is compared with the masked model; if not, the caller does that.

    Raises:
        ValueError: A mask removes pinned channels or all of a group, or does not fit a removed layer.
        ArithmeticError: Outputs on random inputs differ by more than 1e-4 of the largest.
    """
    kept = graph.kept(keep)
    for bypass in without:
        before, after = (kept[ids] for ids in bypass.channels)
        if not np.array_equal(before, after):
            raise ValueError(f"{bypass.name} can't be removed: it reads other channels than it writes")
    config = edited(model, {key: kept[ids] for key, ids in graph.settings.items()})
    bypassed(config, without)
    compact = build(model, config)
    gone = [path for bypass in without for path in (bypass.at, *bypass.layers)]
    for path, old, new in pairs(model, compact, gone):
        taken = {
            weight: {axis: np.flatnonzero(kept[ids]) for axis, ids in axes.items()}
            for (layer, weight), axes in graph.weights.items()
            if layer == path
        }
        copy_weights(old, new, taken)
    if check:
        with masked(model, graph, keep):
            compare(model, compact, without)
    return compact


def edited(model: keras.Model, settings: Mapping[tuple[Path, tuple[str | int, ...]], Any]) -> dict[str, Any]:
    """Return the model's configuration with these sizes (the sums of the values) in it."""
    config = configuration(model)
    _without_builds(config)
    for (path, keys), channels in settings.items():
        place: Any = entry_at(config, path)["config"]
        for key in keys[:-1]:
            place[key] = copy.copy(place[key]) if isinstance(place[key], dict) else list(place[key])
            place = place[key]
        place[keys[-1]] = int(np.sum(channels))
    return config


def _without_builds(config: dict[str, Any]) -> None:
    """Drop the old shapes, and how nested models were compiled."""
    for entry in config["layers"]:
        inner = entry["config"] if isinstance(entry["config"], dict) else {}
        for each in (entry, *(inner[key] for key in WRAPPED if isinstance(inner.get(key), dict))):
            each.pop("build_config", None)
            each.pop("compile_config", None)
        if isinstance(inner.get("layers"), list):
            _without_builds(inner)


def build(model: keras.Model, config: dict[str, Any]) -> keras.Model:
    """Build a model from an edited configuration of `model`, by public API alone.

    Raises:
        ValueError: Keras can't build it; the message is Keras's first line.
    """
    kind = "Sequential" if isinstance(model, keras.Sequential) else "Model"
    whole = {"module": "keras", "class_name": kind, "config": config, "registered_name": None}
    objects: dict[str, Any] = {}
    for _, layer in every_layer(model):
        _collect(layer, objects)
    try:
        # `trace` has refused a Lambda that is not trusted.
        return keras.saving.deserialize_keras_object(whole, custom_objects=objects, safe_mode=False)
    except (TypeError, ValueError, NotImplementedError) as error:
        line = str(error).strip().partition("\n")[0]
        raise ValueError(f"{model.name} can't be rebuilt from its configuration: {line}") from error


def _collect(thing: Any, objects: dict[str, Any]) -> None:
    """Collect the classes and functions of others than Keras that a layer is made of."""
    named = thing if callable(thing) and hasattr(thing, "__name__") else type(thing)
    if named.__module__.partition(".")[0] != "keras":
        objects[named.__name__] = named
        objects[keras.saving.get_registered_name(named)] = named
    for each in vars(thing).values() if hasattr(thing, "__dict__") and named is type(thing) else ():
        for part in each if isinstance(each, list | tuple) else [each]:
            if isinstance(part, keras.layers.Layer) or callable(getattr(part, "get_config", None)):
                if part is not thing:
                    _collect(part, objects)
            elif callable(part) and hasattr(part, "__name__"):
                objects.setdefault(part.__name__, part)


def pairs(
    old: keras.Model, new: keras.Model, removed: Sequence[Path] = ()
) -> Iterator[tuple[Path, Any, Any]]:
    """Yield the layers that both models have, by path; what was removed is only in the old one.

    Layers whose configurations leave out their names get them back: they are the next of their class.
    """
    others = dict(every_layer(new))
    known = {path for path, _ in every_layer(old)}
    unnamed = [path for path in others if path not in known]
    for path, layer in every_layer(old):
        if any(path[:end] in removed for end in range(1, len(path) + 1)):
            continue
        if path not in others:
            place = next(p for p in unnamed if p[:-1] == path[:-1] and type(others[p]) is type(layer))
            unnamed.remove(place)
            others[path] = others[place]
            others[path].name = path[-1]
        yield path, layer, others[path]


def copy_weights(old: Any, new: Any, taken: Mapping[str, Mapping[int, np.ndarray]]) -> None:
    """Copy a layer's weights, of some only the taken entries along axes."""
    slices = {id(weight_of(old, weight)): axes for weight, axes in taken.items()}
    for source, target in zip(old.weights, new.weights, strict=True):
        value = keras.ops.convert_to_numpy(source)
        for axis, indices in slices.get(id(source), {}).items():
            value = np.take(value, indices, axis)
        target.assign(value)
    if not taken:  # layers that keep more than weights, as Normalization does
        store: dict[str, Any] = {}
        old.save_own_variables(store)
        new.load_own_variables(store)


@contextmanager
def masked(model: keras.Model, graph: ChannelGraph, keep: Keep) -> Iterator[None]:
    """Zero, inside this context, all weights that read a masked channel."""
    layers = dict(every_layer(model))
    before: dict[tuple[Path, str], np.ndarray] = {}
    for index, mask in keep.items():
        for part in graph.groups[index].readers:
            variable = weight_of(layers[part.layer], part.weight)
            value = keras.ops.convert_to_numpy(variable)
            before.setdefault((part.layer, part.weight), value)
            removed = [part.indices[channel] for channel in np.flatnonzero(~np.asarray(mask, bool))]
            if removed:
                value = value.copy()
                np.moveaxis(value, part.axis, 0)[np.concatenate(removed)] = 0
                variable.assign(value)
    try:
        yield
    finally:
        for (path, weight), value in before.items():
            weight_of(layers[path], weight).assign(value)


def compare(model: keras.Model, compact: keras.Model, without: Sequence[Bypass] = ()) -> None:
    """Verify a rewritten model on random inputs, where the model itself gives the same each time."""
    inputs = random_inputs(model)
    if inputs is None:
        return

    def expected() -> Any:
        return Bypassed(without)(model, inputs) if without else model(inputs, training=False)

    try:
        verify(first := expected(), compact, inputs)
    except ArithmeticError:
        again = zip(keras.tree.flatten(first), keras.tree.flatten(expected()), strict=True)
        if all(np.array_equal(a, b, equal_nan=True) for a, b in again):
            raise
        log.warning("%s draws random numbers: the rewritten model was not compared", model.name)


def verify(
    expected: Any, compact: keras.Model, inputs: Any, tolerance: float = TOLERANCE, least: float = 0.0
) -> float:
    """Return how far a model's outputs are from the expected ones, relative to the largest of each.

    `expected` are the outputs, or the model that computes them. The largest counts as at least `least`.

    Raises:
        ArithmeticError: It exceeds `tolerance`, for half precision 2e-2 (float16) or 1e-1 (bfloat16).
    """
    if isinstance(expected, keras.Model):
        expected = expected(inputs, training=False)
    outputs = [keras.tree.flatten(each) for each in (expected, compact(inputs, training=False))]
    largest = 0.0
    for a, b in zip(*outputs, strict=True):
        first, second = (np.asarray(keras.ops.convert_to_numpy(each), np.float64) for each in (a, b))
        same = (first == second) | (np.isnan(first) & np.isnan(second))
        gaps = np.abs(np.subtract(first, second, out=np.zeros_like(first), where=~same))
        scale = np.abs(first[np.isfinite(first)]).max(initial=least) or 1.0
        largest = float(np.fmax(largest, np.nan_to_num(gaps.max(initial=0.0) / scale, nan=np.inf)))
    kinds = {layer.compute_dtype for _, layer in every_layer(compact)}
    tolerance = max(tolerance, *(HALF_TOLERANCES.get(kind, 0.0) for kind in kinds))
    if not largest <= tolerance:
        raise ArithmeticError(
            f"the rewritten model differs from the masked one by {largest:.2g}: please report the model"
        )
    return largest


def random_inputs(model: keras.Model, seed: int = 0) -> Any:
    """Return random inputs of the model's structure; None if one takes strings."""
    rng = np.random.default_rng(seed)

    def draw(tensor: Any) -> np.ndarray:
        batch, *sizes = tensor.shape
        unknown = UNKNOWN_SIZE // (2 if sizes.count(None) > 2 else 1)
        shape = (batch or EXAMPLES, *(size or unknown for size in sizes))
        if "int" in tensor.dtype or tensor.dtype == "bool":
            return rng.integers(0, 2, shape).astype(tensor.dtype)
        return rng.standard_normal(shape).astype(tensor.dtype)

    if any(each.dtype == "string" for each in model.inputs):
        return None
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(draw, structure)
