"""Checkpoints: one state of a minimization as arrays and plain data, in memory or as bytes.

A checkpoint holds no path and no graph: another process can load it, with another set of images.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from selfscale.nn.masking import MaskState
from selfscale.nn.trainer import Trainer

STATE = [each.name for each in fields(MaskState)]


@dataclass(frozen=True)
class Checkpoint:
    """A network's weights and masks, the optimizer's variables, and plain data beside them.

    Random numbers are always drawn from a generator made for (seed, decision), so those two numbers are
    the whole random state.
    """

    network: MaskState
    optimizer: list[np.ndarray]
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def take(cls, trainer: Trainer, **data: Any) -> Checkpoint:
        """Copy the state of a trainer; `data` must be serializable as JSON."""
        return cls(trainer.network.state(), [v.numpy().copy() for v in trainer.optimizer.variables], data)

    def restore(self, trainer: Trainer) -> None:
        """Revert a trainer to this state, the optimizer included.

        Raises:
            ValueError: The trainer's network has other layers or filters.
        """
        trainer.network.restore(self.network)
        for variable, value in zip(trainer.optimizer.variables, self.optimizer, strict=True):
            variable.assign(value)

    def to_bytes(self) -> bytes:
        """Serialize as an `.npz` archive."""
        groups = {name: getattr(self.network, name) for name in STATE}
        arrays: dict[str, Any] = {
            f"{group}_{i:03}": array
            for group, items in {**groups, "optimizer": self.optimizer}.items()
            for i, array in enumerate(items)
        }
        content = io.BytesIO()
        np.savez(content, data=np.array(json.dumps(self.data)), **arrays)
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Checkpoint:
        """Deserialize; raises ValueError if the bytes are no checkpoint, or are damaged."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                *network, optimizer = (
                    [archive[name] for name in sorted(archive.files) if name.startswith(f"{group}_")]
                    for group in (*STATE, "optimizer")
                )
                return cls(MaskState(*network), optimizer, json.loads(str(archive["data"])))
        except Exception as error:  # whatever zipfile, zlib, NumPy and JSON raise on damaged bytes
            raise ValueError("is not a snapshot, or is damaged") from error
