"""What DVC does not watch: the user's folders of images, and modules with own operators or strategies.

Files that say in which state these are stand for them among the stages' dependencies.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from selfscale.data import operators
from selfscale.data.sources import image_files
from selfscale.data_config import Data, Task
from selfscale.files import content, new_folder, user_path, write_json
from selfscale.processes import import_tensorflow
from selfscale.settings import Settings

PACKAGE = Path(operators.__file__).parents[1]


def look(settings: Settings, out: Path) -> dict[str, Any]:
    """Write `photographs.json`, and for `runs` each `tasks/TASK.json` and `strategies/NAME.json`, into `out`.

    They change when a file was added, removed or changed in size or time, or a user's own operator or
    strategy in its source. What comes with an installed package has no state. Returns the contents by
    `photographs`, `tasks` and `strategies`. Raises UserError for a folder or a module that is not there.
    """
    with new_folder(out) as folder:
        photographs = {"files": state_of_photographs(settings.data)}
        write_json(folder / "photographs.json", photographs)
        tasks = {name: state_of_task(settings.tasks[name], name) for name in settings.runs.tasks}
        for name, found in tasks.items():
            write_json(folder / "tasks" / f"{name}.json", found)
        strategies = {name: state_of_strategy(settings, name) for name in settings.runs.strategies}
        for name, found in strategies.items():
            write_json(folder / "strategies" / f"{name}.json", found)
    return {"photographs": photographs, "tasks": tasks, "strategies": strategies}


def state_of_photographs(data: Data) -> str:
    if data.source != "folder" or data.folder.path is None:
        return ""
    return state_of_folder(data.folder.path, "data.folder.path")


def state_of_task(task: Task, name: str) -> dict[str, str]:
    if task.targets is not None:
        return {"files": state_of_folder(task.targets, f"tasks.{name}.targets")}
    if task.problem is not None:
        import_tensorflow()  # which the module most probably does, with many lines
        return {"code": operators.own_code(task.problem, f"tasks.{name}.problem"), "library": library_code()}
    return {"code": operators.own_code(task.operator or "", f"tasks.{name}.operator")}


def library_code() -> str:
    """A hash of the code that problems alone run; what all tasks run is among the stages' dependencies."""
    parts = {"library": "**/*.py", "pipeline": "problem*.py"}
    found = [content(PACKAGE / room, pattern) for room, pattern in parts.items()]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def state_of_strategy(settings: Settings, name: str) -> dict[str, Any]:
    """Its own code, and the settings of growth if it grows, which other strategies do not depend on."""
    found: dict[str, Any] = {"code": own_code(settings, name)}
    if settings.may_grow(name):
        found |= settings.model_dump(mode="json", include={"growth", "scaling"})
    return found


def own_code(settings: Settings, strategy: str) -> list[str]:
    """A hash of the user's own code in a strategy, and in growth if it grows; empty where there is none."""
    chosen = settings.strategies[strategy]
    codes = [operators.own_code(chosen.select, f"strategies.{strategy}.select")]
    if settings.may_grow(strategy):
        codes.append(operators.own_code(settings.growth.select, "growth.select"))
    return codes


def state_of_folder(folder: str, where: str) -> str:
    """A hash of the images' names, sizes and times: reading all of them could take minutes."""
    root = user_path(folder, where)
    found = [(path.relative_to(root).as_posix(), path.stat()) for path in image_files(root, where)]
    states = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()
