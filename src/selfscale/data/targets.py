"""Targets: what an operator makes of every prepared image, or what files say that is wanted of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfscale.data import pairs, shards
from selfscale.data.operators import Operator, own_code, resolve
from selfscale.data.prepare import SPLITS
from selfscale.data_config import Task
from selfscale.errors import UserError
from selfscale.files import map_array, new_array, new_folder, read_json, write_bytes, write_json
from selfscale.schemas import Prepared


class Shard(NamedTuple):
    """Consecutive images of one array, from row `start` on, each with what its target is made by.

    That is the `Pair` of a wanted output, or for an operator just the image's name for messages. Their
    targets are the content of the file `path`.
    """

    path: Path
    images: Path
    start: int
    items: Sequence[Any]


class Way(NamedTuple):
    """How targets come about: by an operator, or from files."""

    title: str
    described: dict[str, Any]  # for the manifest
    items: Sequence[Any]  # of all images, see `Shard`
    inputs: Any  # what the shards depend on, as JSON
    make: Callable[[Shard], Iterable[NDArray[Any]]]  # the targets of a shard; runs in a worker process
    # Of all shards, whether the targets are discrete, and what makes the bytes to keep of a shard's.
    encoding: Callable[[Sequence[Path]], tuple[bool, Callable[[bytes], bytes]]]


def make_targets(task: Task, prepared: Path, out: Path, workers: int | None = None) -> dict[str, Any]:
    """Make the target of every prepared image, as floats in [0, 1], in the folder `out`.

    Writes `train.npy`, `validation.npy` and `test.npy`, of the images' shape N,H,W,1, and
    `manifest.json`. Discrete targets are uint8, 0 or 1. Others are float16: its error is at most
    2.4e-4 for values up to 1 and 1.5e-5 at 0.05, a typical Sobel value, where a network errs by
    about 3e-3; 8 bits would err by 2e-3. Cut off, it goes on after the last finished shard, as long
    as images and operator, or files, are the same.

    Returns the manifest. Raises UserError for an unknown operator or argument, if the operator
    fails or answers in another shape or with other values than it may, if a wanted output is missing or
    does not fit its input, if there are no prepared images, and if `out` cannot be written; `out` is
    then as it was before.
    """
    manifest = read_json(prepared / "manifest.json", "prepare", Prepared)
    shapes = {split: map_array(prepared / f"{split}.npy").shape for split in SPLITS}
    way = by_operator(task, manifest) if task.operator else by_files(task, manifest, out.name)
    hashes = {split: hashlib.sha256() for split in SPLITS}
    with new_folder(out) as folder, shards.kept(out, [manifest["fingerprint"], way.inputs]) as state:
        work = {split: _shards(state, prepared, split, way, manifest["images"]) for split in SPLITS}
        every = [shard for split in SPLITS for shard in work[split]]
        paths = list(shards.ordered_map(partial(write_shard, make=way.make), every, workers, way.title))
        discrete, encode = way.encoding(paths)
        check_loss(out.name, task, discrete=discrete)
        for split in SPLITS:
            with new_array(folder / f"{split}.npy", target_dtype(discrete), shapes[split]) as file:
                values: set[float] = set()
                for shard in work[split]:
                    targets = encode(shard.path.read_bytes())
                    file.write(targets)
                    hashes[split].update(targets)
                    if len(values) < 2:
                        numbers = np.frombuffer(targets, target_dtype(discrete))
                        values |= {float(numbers.min()), float(numbers.max())}
            if len(values) == 1:
                raise constant_targets(out.name, task, split, values.pop(), work[split])
        made = {
            **way.described,
            "discrete": discrete,
            "images": manifest["fingerprint"],
            # A user's own operator may change under the same name and arguments, and so may files.
            "sha256": {split: digest.hexdigest() for split, digest in hashes.items()},
        }
        write_json(folder / "manifest.json", made)
    return made


def check_loss(name: str, task: Task, *, discrete: bool) -> str:
    """The task's loss; UserError if it needs discrete targets, and they are not."""
    if task.loss == "soft_f1" and not discrete:
        wanted = f"wanted outputs of just two values, which those in {task.targets} have not"
        needs = "a discrete operator" if task.operator else wanted
        raise UserError(f"tasks.{name}.loss: soft_f1 needs {needs}; use mae or mse")
    return task.loss or ""


def constant_targets(name: str, task: Task, split: str, value: float, work: Sequence[Shard]) -> UserError:
    """The error for a split whose targets are the same everywhere: any network does that."""
    outside = ""
    if task.targets and any(pairs.varies(pair) for shard in work for pair in shard.items):
        outside = " in the crops, but not in the whole files: what varies lies outside of data.size;"
    return UserError(
        f"tasks.{name}: every pixel of the {split} targets is {value:g}{outside or ';'} nothing could be "
        "learnt, or told apart, by them; choose other images, another data.split_seed or another task"
    )


def _shards(state: Path, prepared: Path, split: str, way: Way, images: Sequence[Any]) -> list[Shard]:
    found, start = [], 0
    both = zip(way.items, images, strict=True)
    for items in shards.parts([item for item, image in both if image["split"] == split]):
        found.append(Shard(state / f"{split}-{start:06}", prepared / f"{split}.npy", start, items))
        start += len(items)
    return found


def by_operator(task: Task, manifest: Mapping[str, Any]) -> Way:
    """UserError for an unknown operator or argument."""
    operator = resolve(task.operator or "")
    operator.check(task.arguments, f"{operator.name}.arguments")
    return Way(
        f"{operator.name} targets",
        {"operator": operator.name, "arguments": task.arguments},
        [image["name"] for image in manifest["images"]],
        [operator.name, task.arguments, own_code(operator.name, "operator")],
        # The operator goes by name: a function from a user's own module may not survive pickling.
        partial(apply_to_shard, operator=operator.name, arguments=task.arguments),
        lambda paths: (operator.discrete, bytes),
    )


def by_files(task: Task, manifest: Mapping[str, Any], name: str) -> Way:
    """UserError for a file without a partner."""
    found = pairs.paired(task.targets or "", manifest, f"tasks.{name}.targets")
    return Way(
        f"{name} targets",
        {"operator": None, "arguments": {}},
        found,
        pairs.state(found),
        partial(cut_shard, size=manifest["size"]),
        pairs.encoding,
    )


def write_shard(shard: Shard, make: Callable[[Shard], Iterable[NDArray[Any]]]) -> Path:
    """Write the targets of some images, unless they are there, to the file that it returns."""
    if not shard.path.exists():
        write_bytes(shard.path, b"".join(target.tobytes() for target in make(shard)))
    return shard.path


def cut_shard(shard: Shard, size: int) -> Iterator[NDArray[Any]]:
    """The wanted outputs of some images."""
    return (pairs.cut(pair, size) for pair in shard.items)


def target_dtype(discrete: bool) -> type[np.uint8] | type[np.float16]:
    return np.uint8 if discrete else np.float16


def apply_to_shard(shard: Shard, operator: str, arguments: dict[str, Any]) -> Iterator[NDArray[Any]]:
    """What an operator makes of some images."""
    found = resolve(operator)
    checked = found.check(arguments, f"{operator}.arguments")
    images = map_array(shard.images)[shard.start : shard.start + len(shard.items), ..., 0]
    for image, name in zip(images, shard.items, strict=True):
        yield apply_operator(found, checked, image / 255, name)


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
        kept = target.astype(target_dtype(operator.discrete))
    if not np.isfinite(kept).all():
        raise UserError(f"{where}: the result is not finite, or beyond 65504, somewhere")
    return kept
