"""The bytes of a `.keras` file: made so that they depend on the model only, and read from any origin."""

from __future__ import annotations

import io
import json
import re
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfscale.errors import reason, shown

if TYPE_CHECKING:
    import keras

EPOCH = (1980, 1, 1, 0, 0, 0)
LARGEST_MODEL = 2**31  # bytes of a network, unpacked
# Sizes of layers that a file of a few bytes can name.
SIZES, LARGEST_SIZE = ("filters", "units", "kernel_size", "pool_size", "input_dim", "output_dim"), 2**16


def to_bytes(model: keras.Model) -> bytes:
    """The `.keras` file of a model.

    Keras stamps the time into the archive, and names objects that layers share by their addresses:
    the archive is written again without these, so that the same model always has the same hash.
    """
    whole = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "model.keras"
        model.save(written)
        with zipfile.ZipFile(written) as source, zipfile.ZipFile(whole, "w") as target:
            for name in sorted(source.namelist()):
                content = source.read(name)
                if name == "metadata.json":
                    metadata = json.loads(content)
                    content = json.dumps({"keras_version": metadata["keras_version"]}).encode()
                if name == "config.json":
                    content = renumbered(content)
                target.writestr(zipfile.ZipInfo(name, EPOCH), content)
    return whole.getvalue()


def renumbered(config: bytes) -> bytes:
    """A Keras configuration whose shared objects are numbered in their order."""
    numbers: dict[bytes, int] = {}

    def number(found: re.Match[bytes]) -> bytes:
        return found[1] + str(numbers.setdefault(found[2], len(numbers))).encode()

    return re.sub(rb'("shared_object_id": )(\d+)', number, config)


def read(path: Path) -> keras.Model:
    """Load a `.keras` file of any origin; none of its bytes can run code.

    Raises:
        ValueError: it is damaged, of another kind, larger than a machine's memory, or its weights are not
            finite; the message is one line.
    """
    import keras
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:  # what is none, Keras takes for an older, less safe format
            size = sum(member.file_size for member in archive.infolist())
            outsized = find_outsized(json.loads(archive.read("config.json"))) if size <= LARGEST_MODEL else ""
        if size > LARGEST_MODEL or outsized:
            raise ValueError(f"it is too large: {outsized or f'{size} bytes'}")
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever zipfile, JSON, HDF5, Keras and TensorFlow raise on damaged bytes
        raise ValueError(reason(error)) from error
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        raise ValueError("some of its weights are not finite numbers; train it again")
    return model


def find_outsized(config: Any) -> str:
    """Name a size in a Keras configuration that no network here has, nor memory; empty if there is none."""
    if isinstance(config, list):
        return next(filter(None, map(find_outsized, config)), "")
    for key, value in config.items() if isinstance(config, dict) else ():
        sizes = value if isinstance(value, list) else [value]
        if key in SIZES and any(isinstance(size, int) and size > LARGEST_SIZE for size in sizes):
            return f"{key} {shown(value)}"
        if found := find_outsized(value):
            return found
    return ""
