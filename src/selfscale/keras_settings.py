"""What networks need of Keras's own settings: `keras.json`, and KERAS_BACKEND above it."""

from __future__ import annotations

import json
import os
from pathlib import Path

NEEDED = {"backend": "tensorflow", "image_data_format": "channels_last", "floatx": "float32"}


def unfit() -> list[str]:
    """Say of each setting that Keras would begin with, and networks cannot have, what to change."""
    home = os.environ.get("KERAS_HOME") or "~/.keras"
    file = Path(os.path.expanduser(home)) / "keras.json"  # noqa: PTH111 - a home that is unknown stays "~"
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):  # Keras then has its defaults
        found = {}
    if not isinstance(found, dict):
        return [f"{file}: is no mapping; delete it"]
    settings = {key: found.get(key, needed) for key, needed in NEEDED.items()}
    named = {key: f"{file}: {key} is {value}" for key, value in settings.items()}
    if chosen := os.environ.get("KERAS_BACKEND"):
        settings["backend"], named["backend"] = chosen, f"KERAS_BACKEND={chosen}"
    return [
        f"{named[key]}, but selfscale needs {needed}; change it"
        for key, needed in NEEDED.items()
        if settings[key] != needed
    ]
