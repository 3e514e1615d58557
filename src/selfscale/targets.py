"""Targets: what an operator makes of every prepared image."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfscale.config import Task
from selfscale.dataset import SPLITS
from selfscale.errors import UserError
from selfscale.files import read_json, write_json
from selfscale.operators import Operator, resolve
from selfscale.parallel import ordered_map, progress
from selfscale.storage import map_array, new_array, new_folder

IMAGES_AT_ONCE = 16  # what a worker answers at once: few enough for little memory


class Rows(NamedTuple):
    """Consecutive images of one array, from row `start` on, with their names for messages."""

    path: Path
    start: int
    names: tuple[str, ...]


def make_targets(task: Task, prepared: Path, out: Path, workers: int | None = None) -> dict[str, Any]:
    """Apply the task's operator to every prepared image, as floats in [0, 1], into the folder `out`.

    Writes `train.npy`, `validation.npy` and `test.npy`, of the images' shape N,H,W,1, and
    `manifest.json`. Discrete targets are uint8, 0 or 1. Others are float16: its error is at most
    2.4e-4 for values up to 1 and 1.5e-5 at 0.05, a typical Sobel value, where a network errs by
    about 3e-3; 8 bits would err by 2e-3.

    Returns the manifest. Raises UserError for an unknown operator or argument, if the operator
    fails or answers in another shape or with other values than it may, if there are no prepared
    images, and if `out` cannot be written; `out` is then as it was before.
    """
    operator = resolve(task.operator)
    operator.check(task.arguments, f"{operator.name}.arguments")
    manifest = read_json(prepared / "manifest.json", stage="prepare")
    rows = {split: _rows(prepared / f"{split}.npy", split, manifest["images"]) for split in SPLITS}
    shapes = {split: map_array(prepared / f"{split}.npy").shape for split in SPLITS}
    chunks = [chunk for split in SPLITS for chunk in rows[split]]
    # The operator goes by name: a function from a user's own module may not survive pickling.
    apply = partial(apply_to_rows, operator=operator.name, arguments=task.arguments)
    results = progress(ordered_map(apply, chunks, workers), f"{operator.name} targets", len(chunks))
    hashes = {split: hashlib.sha256() for split in SPLITS}
    with new_folder(out) as folder:
        for split in SPLITS:
            with new_array(folder / f"{split}.npy", target_dtype(operator), shapes[split]) as file:
                for _ in rows[split]:
                    targets = next(results).tobytes()
                    file.write(targets)
                    hashes[split].update(targets)
        made = {
            "operator": operator.name,
            "arguments": task.arguments,
            "discrete": operator.discrete,
            "images": manifest["fingerprint"],
            # A user's own operator may change under the same name and arguments.
            "sha256": {split: digest.hexdigest() for split, digest in hashes.items()},
        }
        write_json(folder / "manifest.json", made)
    return made


def _rows(path: Path, split: str, images: list[dict[str, Any]]) -> list[Rows]:
    names = [image["name"] for image in images if image["split"] == split]
    starts = range(0, len(names), IMAGES_AT_ONCE)
    return [Rows(path, start, tuple(names[start : start + IMAGES_AT_ONCE])) for start in starts]


def target_dtype(operator: Operator) -> type[np.uint8] | type[np.float16]:
    return np.uint8 if operator.discrete else np.float16


def apply_to_rows(rows: Rows, operator: str, arguments: dict[str, Any]) -> NDArray[Any]:
    """The targets of some images, of shape n,H,W,1; runs in a worker process."""
    found = resolve(operator)
    checked = found.check(arguments, f"{operator}.arguments")
    images = map_array(rows.path)[rows.start : rows.start + len(rows.names), ..., 0]
    targets = [
        apply_operator(found, checked, image / 255, name)
        for image, name in zip(images, rows.names, strict=True)
    ]
    return np.stack(targets)[..., np.newaxis]


def apply_operator(
    operator: Operator, arguments: dict[str, Any], image: NDArray[np.float64], name: str
) -> NDArray[Any]:
    """One image's target, H,W, in the dtype in which it is kept; UserError if it is not a valid one."""
    where = f"operator {operator.name} on {name}"
    try:
        target = np.asarray(operator.function(image, **arguments))
    except Exception as error:  # also a user's own function, which may raise anything
        raise UserError(f"{where}: {type(error).__name__}: {error}") from error
    if target.shape != image.shape:
        raise UserError(f"{where}: the result has shape {target.shape}; it must be {image.shape}")
    if target.dtype.kind not in "biuf":
        raise UserError(
            f"{where}: the result is of type {target.dtype}; it must be boolean, integer or float"
        )
    if operator.discrete and not np.isin(target, (0, 1)).all():
        raise UserError(f"{where}: the result of a discrete operator must be 0 or 1 everywhere")
    with np.errstate(over="ignore"):
        kept = target.astype(target_dtype(operator))
    if not np.isfinite(kept).all():
        raise UserError(f"{where}: the result is not finite, or beyond 65504, somewhere")
    return kept
