"""Snapshots: everything that one state of a minimization consists of, in memory or in one file.

A snapshot holds arrays and plain data, no paths and no graph: it can be moved, and loaded by
another process, with another set of images.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selfscale.errors import UserError
from selfscale.nn.masking import MaskState
from selfscale.nn.trainer import Trainer


@dataclass(frozen=True)
class Checkpoint:
    """A network's weights and switches, the optimizer's accumulators, and plain data beside them.

    Random numbers are always drawn from a generator made for (seed, decision), so those two
    counters in `data` are the whole random state.
    """

    network: MaskState
    optimizer: list[np.ndarray]
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def take(cls, trainer: Trainer, **data: Any) -> Checkpoint:
        return cls(trainer.network.state(), [v.numpy().copy() for v in trainer.optimizer.variables], data)

    def restore(self, trainer: Trainer) -> None:
        """Step back: weights, switches and Adam's state exactly as they were.

        Raises:
            ValueError: the snapshot is of a network of another shape.
        """
        trainer.network.restore(self.network)
        for variable, value in zip(trainer.optimizer.variables, self.optimizer, strict=True):
            variable.assign(value)

    def save(self, path: Path) -> None:
        """Write to one file, whole or not at all."""
        groups = {
            "weights": self.network.weights,
            "active": self.network.active,
            "trainable": self.network.trainable,
            "indices": self.network.indices,
            "optimizer": self.optimizer,
        }
        arrays: dict[str, Any] = {
            f"{group}_{i:03}": array for group, items in groups.items() for i, array in enumerate(items)
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            np.savez(file, data=np.array(json.dumps(self.data)), **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Raises UserError if the file is missing or is no snapshot."""
        try:
            with np.load(path, allow_pickle=False) as file:
                groups: dict[str, list[np.ndarray]] = {
                    group: [file[name] for name in sorted(file.files) if name.startswith(f"{group}_")]
                    for group in ("weights", "active", "trainable", "indices", "optimizer")
                }
                data = json.loads(str(file["data"]))
        except FileNotFoundError as error:
            raise UserError(f"{path}: there is no such snapshot") from error
        except (ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise UserError(f"{path}: is not a snapshot, or is damaged; delete it to start anew") from error
        state = MaskState(*(groups[name] for name in ("weights", "active", "trainable", "indices")))
        return cls(state, groups["optimizer"], data)
