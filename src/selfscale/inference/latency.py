"""How long networks take on this machine: measured once, in turns with the network that they came from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from selfscale import files
from selfscale.errors import UserError
from selfscale.nn.blocking import Chain
from selfscale.paths import STATE

SIDE = 1024  # pixels of the image
REPETITIONS = 7
# What was measured in this folder, by `fingerprint`: milliseconds vary, so no stage depends on them.
SPEEDS = STATE / "speeds.json"

# From images to outputs, both float32 (N, H, W, 1).
Function = Callable[[NDArray[np.float32]], Any]


class Speed(NamedTuple):
    """Milliseconds per megapixel: as `selfscale apply` runs a network, and as a plain Keras model."""

    ms_per_megapixel: float
    plain_ms_per_megapixel: float


def milliseconds(functions: Sequence[Function]) -> list[float]:
    """Measure what a megapixel takes each function: the fastest of several calls, in turns.

    What else the machine does only makes calls slower; in turns, it slows all functions down.
    """
    image = np.random.default_rng(0).random((1, SIDE, SIDE, 1), dtype=np.float32)
    for function in functions:  # the first call compiles
        function(image)
    seconds = np.empty((REPETITIONS, len(functions)))
    for row in seconds:
        for place, function in enumerate(functions):
            started = time.perf_counter()
            function(image)
            row[place] = time.perf_counter() - started
    return [float(fastest) for fastest in seconds.min(axis=0) * 1e9 / SIDE**2]


def compiled(model: Callable[[tf.Tensor], tf.Tensor]) -> Function:
    call = tf.function(model, input_signature=[tf.TensorSpec((1, SIDE, SIDE, 1))], autograph=False)
    return lambda images: call(images).numpy()


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
        chains = {key: Chain(model).on_images for key, model in wanted.items()}
        fast = milliseconds([*map(compiled, chains.values()), *map(plain, wanted.values())])
        found = dict(zip(wanted, map(Speed, fast[: len(wanted)], fast[len(wanted) :]), strict=True))
        then = known.get(keys[initial], found[keys[initial]])
        scale = then.plain_ms_per_megapixel / found[keys[initial]].plain_ms_per_megapixel
        known |= {key: Speed(*(scale * value for value in found[key])) for key in new}
        files.write_json(SPEEDS, known)
    return {path: known[key] for path, key in keys.items()}


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
