"""The folder in which a minimization goes on after it was killed, with the same result."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

from selfscale import files
from selfscale.library.network import Network, Task
from selfscale.library.plan import Plan, State
from selfscale.library.result import ChannelDecision, FrontierPoint, Size
from selfscale.nn.rewriting import build

RECORD = "minimization.json"
DAMAGED = (KeyError, TypeError, StopIteration, OSError, zipfile.BadZipFile, json.JSONDecodeError)


class Checkpoint:
    """A folder with all decisions, the networks on the way, and the one that is gone on from.

    The record is written last, and whole or not at all: what it names is there.

    Args:
        folder: Created if it is not there.
        settings: What the result depends on; see `settings_of`.
        model: The given model, whose own classes networks are rebuilt from.

    Raises:
        ValueError: The folder can't be made.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], model: keras.Model) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"directory: {folder} can't be made ({error.strerror})") from error
        self.folder, self.model = folder, model
        self._settings = json.loads(json.dumps(settings))

    def save(self, state: State) -> None:
        """Write what the last decision has changed."""
        last, current = state.decisions[-1], self._network(state.base.decision)
        if last.number == state.points[-1].decision:
            files.save_model(state.points[-1].model, self._point(last.number))
        if last.gone_on:
            files.save_model(state.network.model, current)
        record = {
            "settings": self._settings,
            "decisions": [each.as_dict() for each in state.decisions],
            "points": [
                {key: value for key, value in vars(point).items() if key not in ("model", "path")}
                | {"size": asdict(point.size)}
                for point in state.points[1:]
            ],
            "keep": {str(index): mask.tolist() for index, mask in state.network.keep.items()},
        }
        files.write_json(self.folder / RECORD, record)
        for other in self.folder.glob("network-*.keras"):
            if other != current:
                other.unlink()

    def load(self, state: State, task: Task) -> State:
        """Return the state that the folder has, or the given one of the beginning.

        Raises:
            ValueError: It holds a minimization of something else, or is damaged.
        """
        path = self.folder / RECORD
        if not path.exists():
            return state
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            other = [key for key, value in self._settings.items() if record["settings"].get(key) != value]
            if other:
                raise ValueError(
                    f"directory: {self.folder} holds a minimization with another {', '.join(other)}; "
                    "choose another folder, or delete it"
                )
            decisions = [ChannelDecision.from_dict(each) for each in record["decisions"]]
            points = [state.points[0]]
            for each in record["points"]:
                model = self._loaded(self._point(each["decision"]))
                points.append(FrontierPoint(**{**each, "size": Size(**each["size"])}, model=model))
            state = State(state.network, decisions, points)
            if state.base.decision:
                state.network = Network(self._loaded(self._network(state.base.decision)), task)
                for index, mask in record["keep"].items():
                    state.network.masks.disable(int(index), np.flatnonzero(~np.array(mask)))
        except DAMAGED as error:
            raise ValueError(f"directory: {path} is damaged ({error}); delete {self.folder}") from error
        return state

    def _point(self, decision: int) -> Path:
        return self.folder / "points" / f"{decision:03}.keras"

    def _network(self, decision: int) -> Path:
        return self.folder / f"network-{decision:03}.keras"

    def _loaded(self, path: Path) -> keras.Model:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["config"]
        model = build(self.model, config)
        model.load_weights(path)
        return model


def settings_of(model: keras.Model, plan: Plan, cost: str, metric: str, examples: int) -> dict[str, Any]:
    """Return what the result of a minimization depends on, as plain data."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return {
        "model": f"{model.count_params()} parameters, {digest.hexdigest()[:16]}",
        "tolerance": plan.tolerance,
        "confidence": plan.confidence,
        "strategy": getattr(plan.strategy, "__name__", "own"),
        "protect": plan.protect,
        "round_to": plan.round_to,
        "steps of a session": [plan.session_steps, plan.long_steps],
        "seed": plan.seed,
        "cost": cost,
        "metric": metric,
        "number of validation examples": examples,
    }
