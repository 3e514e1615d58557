"""The same work on a Ray cluster (extra `ray`): `execution.engine: ray`.

The project's folder has to be there on every node under the same path (a shared file system), and
this package has to be installed there. A job whose node was lost starts again on another one, and
goes on after its last saved decision, as after any kill.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from selfscale.config import Execution
from selfscale.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

PASSED_ON = ("MLFLOW_TRACKING_URI", "CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL", "DVC_ROOT", "PYTHONPATH")


def import_ray() -> ModuleType:
    """Raises UserError if Ray is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when it is imported
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "execution.engine: ray is not installed; `pip install 'selfscale[ray]'`, or set it to processes"
        ) from error
    return ray


def cluster_map(
    function: Callable[[Path, Item], Result], items: Sequence[Item], execution: Execution, trials: int = 1
) -> Iterator[Result]:
    """`function(FOLDER, item)` of each item, in their order, each in `execution.threads` CPUs a trial.

    Of the cluster that `ray start` has made known here (or RAY_ADDRESS names); if there is none,
    this machine becomes one. At most `execution.workers` are at it at once, if that is set.
    """
    ray = import_ray()
    if not ray.is_initialized():
        ray.init(include_dashboard=False, logging_level=logging.WARNING)
    remote = ray.remote(
        num_cpus=execution.threads * trials,
        max_retries=-1,  # only when a node or a process is lost: what the function raises is raised here
        runtime_env={"env_vars": {name: os.environ[name] for name in PASSED_ON if name in os.environ}},
    )(function)
    pending = deque[Any]()
    for item in items:
        pending.append(remote.remote(Path.cwd(), item))
        if execution.workers and len(pending) >= execution.workers:
            yield ray.get(pending.popleft())
    while pending:
        yield ray.get(pending.popleft())
