"""selfscale: train a network, then find the smallest one that still does the task, with evidence."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfscale import keras_settings

if TYPE_CHECKING:
    from selfscale.library.explain import explain
    from selfscale.library.minimize import minimize
    from selfscale.library.problem import Problem
    from selfscale.nn.graph_recording import register_rule

__version__ = "0.2.0"
__all__ = ["Problem", "explain", "minimize", "register_rule"]

# Imported when they are asked for: TensorFlow takes seconds.
HOMES = {
    "Problem": "selfscale.library.problem",
    "explain": "selfscale.library.explain",
    "minimize": "selfscale.library.minimize",
    "register_rule": "selfscale.nn.graph_recording",
}

# Commands set Keras by themselves, before it is imported.
if Path(sys.argv[0]).name != "selfscale" and (problems := keras_settings.unfit()):
    raise ImportError(problems[0])


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'selfscale' has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)
