"""How long networks take on this machine: measured once, in turns with the network that they came from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from selfscale import files
from selfscale.errors import UserError
from selfscale.nn.block_shape import PLAIN
from selfscale.nn.blocking import Chain
from selfscale.paths import STATE

SIDE = 1024  # pixels of the image
MOST = 4096  # examples at once, where an example is smaller
REPETITIONS = 7
# What was measured in this folder, by `fingerprint`: milliseconds vary, so no stage depends on them.
SPEEDS = STATE / "speeds.json"

# From images to outputs, both float32 (N, H, W, 1); of a problem, whatever its network takes and gives.
Function = Callable[[Any], Any]
Shape = tuple[int | None, ...]
GRAY: Sequence[Shape] = ((None, None, None, 1),)  # images of any size


class Speed(NamedTuple):
    """Milliseconds per megapixel: as `selfscale apply` runs a network, and as a plain Keras model."""

    ms_per_megapixel: float
    plain_ms_per_megapixel: float


def milliseconds(functions: Sequence[Function], shapes: Sequence[Shape] = GRAY) -> list[float]:
    """Measure what a megapixel takes each function: the fastest of several calls, in turns.

    What else the machine does only makes calls slower; in turns, it slows all functions down. Inputs that
    have a size of their own, by their `shapes`, are as many as make a megapixel.
    """
    pixels = prod(axis or SIDE for axis in shapes[0][1:-1])
    count, rng = min(MOST, -(-(SIDE**2) // pixels)), np.random.default_rng(0)
    inputs = [
        rng.random((count, *(axis or SIDE for axis in shape[1:])), dtype=np.float32) for shape in shapes
    ]
    image = inputs if len(inputs) > 1 else inputs[0]
    for function in functions:  # the first call compiles
        function(image)
    seconds = np.empty((REPETITIONS, len(functions)))
    for row in seconds:
        for place, function in enumerate(functions):
            started = time.perf_counter()
            function(image)
            row[place] = time.perf_counter() - started
    return [float(fastest) for fastest in seconds.min(axis=0) * 1e9 / (count * pixels)]


def compiled(model: Callable[[Any], Any]) -> Function:
    call = tf.function(model, autograph=False)
    return lambda images: keras.tree.map_structure(lambda output: output.numpy(), call(images))


def plain(model: keras.Model) -> Function:
    return compiled(lambda images: model(images, training=False))


def measured(networks: Sequence[Path], initial: Path, stage: str) -> dict[Path, Speed]:
    """Return the speeds of networks, and of the initial one that they came from, in its file.

    Networks of the same layers are as fast as each other, and none is measured twice. Later measurements
    are scaled by what the initial network takes then, so that all of them can be compared.

    Args:
        stage: That makes the networks, for error messages.
    """
    models = {path: files.load_model(path, stage) for path in (initial, *networks)}
    keys = {path: fingerprint(model) for path, model in models.items()}
    known = read_speeds()
    new = {keys[path]: model for path, model in models.items() if keys[path] not in known}
    if new:
        wanted = {keys[initial]: models[initial]} | new
        applied = [compiled(as_applied(model)) for model in wanted.values()]
        shapes = [tuple(tensor.shape) for tensor in models[initial].inputs]
        fast = milliseconds([*applied, *map(plain, wanted.values())], shapes)
        found = dict(zip(wanted, map(Speed, fast[: len(wanted)], fast[len(wanted) :]), strict=True))
        then = known.get(keys[initial], found[keys[initial]])
        scale = then.plain_ms_per_megapixel / found[keys[initial]].plain_ms_per_megapixel
        known |= {key: Speed(*(scale * value for value in found[key])) for key in new}
        files.write_json(SPEEDS, known)
    return {path: known[key] for path, key in keys.items()}


def as_applied(model: keras.Model) -> Callable[[Any], Any]:
    """A network as `selfscale apply` runs it."""
    chain = Chain(model)
    return chain.model if chain.shape == PLAIN else chain.on_images


def read_speeds() -> dict[str, Speed]:
    """What was measured before; nothing if the file is damaged."""
    try:
        return {key: Speed(*found) for key, found in files.read_json(SPEEDS, "", dict[str, Speed]).items()}
    except UserError:
        return {}


def fingerprint(model: keras.Model) -> str:
    """A hash of all that a network's speed depends on: its layers without weights, and the machine."""
    machine = [
        tf.__version__,
        tf.config.threading.get_intra_op_parallelism_threads(),
        [device.name for device in tf.config.list_physical_devices()],
        str(Chain(model).shape),
    ]
    about = [
        machine,
        *({"kind": type(layer).__name__} | size_of(layer.get_config()) for layer in model.layers),
    ]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def size_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's configuration without its name and first weights."""
    return {key: value for key, value in config.items() if key != "name" and "initializer" not in key}
