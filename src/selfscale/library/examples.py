"""Batches of training without end, and validation examples in one order, from whatever Keras trains on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from selfscale.errors import counted

MOST_BYTES = 8 * 2**30  # of validation data, which stays in memory
MOST_EXAMPLES = 1_000_000


class Batch(NamedTuple):
    """Nests of tensors, as the model takes and returns them; the weights may be missing."""

    x: Any
    y: Any
    weights: Any = None


class Source:
    """Data as epochs of batches.

    Args:
        data: A `tf.data.Dataset` of batches, arrays `(x, y)` or `(x, y, sample_weight)`, whose parts may
            be nests, or a `keras.utils.PyDataset`.
        name: What the caller calls it, for messages.
        batch_size: Of arrays.

    Raises:
        ValueError: It is nothing of that kind, or it is empty.
    """

    def __init__(self, data: Any, name: str, batch_size: int = 32) -> None:
        self.data, self.name, self._batch_size = data, name, batch_size
        self.batches: int | None = None  # of an epoch; None: unknown or without end
        if isinstance(data, tf.data.Dataset):
            count = int(data.cardinality())
            self.endless, self.batches = count == tf.data.INFINITE_CARDINALITY, max(count, 0) or None
            if count == 0:
                raise ValueError(f"{name}: is empty")
        elif isinstance(data, keras.utils.PyDataset):
            self.batches = data.num_batches
            self.endless = self.batches is None
            if self.batches == 0:
                raise ValueError(f"{name}: is empty")
        elif isinstance(data, tuple | list) and len(data) in (2, 3):
            self.batches, self.endless = -(-self._examples() // batch_size), False
            check_finite(tuple(data), name)
        else:
            raise ValueError(
                f"{name}: must be a tf.data.Dataset, arrays (x, y) or (x, y, sample_weight), or a "
                f"keras.utils.PyDataset, not {described(data)}"
            )

    def epoch(self, rng: np.random.Generator | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch, of arrays in an order from `rng`."""
        if isinstance(self.data, tf.data.Dataset):
            yield from (self._batch(element) for element in self.data)
        elif isinstance(self.data, keras.utils.PyDataset):
            order = itertools.count() if self.batches is None else range(self.batches)
            if rng is not None and self.batches is not None:
                order = rng.permutation(self.batches).tolist()
            yield from (self._batch(self.data[index]) for index in order)
            self.data.on_epoch_end()
        else:
            count = self._examples()
            indices = np.arange(count) if rng is None else rng.permutation(count)
            for start in range(0, count, self._batch_size):
                part = indices[start : start + self._batch_size]
                yield self._batch(keras.tree.map_structure(lambda a: np.asarray(a)[part], tuple(self.data)))  # noqa: B023

    def endlessly(self, seed: int, skip: int = 0) -> Iterator[Batch]:
        """Yield batches without end, the first `skip` left out."""
        epochs = (self._checked(np.random.default_rng((seed, number))) for number in itertools.count())
        return itertools.islice(itertools.chain.from_iterable(epochs), skip, None)

    def check_finite(self, most: int) -> None:
        """Raise ValueError for a NaN or an infinite number in an epoch, or in `most` batches."""
        if not isinstance(self.data, tuple | list):  # arrays were checked in the beginning
            for batch in itertools.islice(self.epoch(), self.batches or most):
                check_finite(tuple(batch), self.name)

    def _checked(self, rng: np.random.Generator) -> Iterator[Batch]:
        found = False
        for found, batch in zip(itertools.repeat(True), self.epoch(rng), strict=False):  # noqa: B007
            yield batch
        if not found:
            raise ValueError(f"{self.name}: is empty")

    def _batch(self, element: Any) -> Batch:
        if not (isinstance(element, tuple | list) and len(element) in (2, 3)):
            raise ValueError(
                f"{self.name}: each element must be (x, y) or (x, y, sample_weight), not {described(element)}"
            )
        return Batch(*(keras.tree.map_structure(tf.convert_to_tensor, part) for part in element))

    def _examples(self) -> int:
        leaves = [leaf for leaf in keras.tree.flatten(tuple(self.data)) if leaf is not None]
        if not all(getattr(leaf, "shape", ()) for leaf in leaves):
            raise ValueError(f"{self.name}: holds numbers that are in no array; use numpy.asarray")
        lengths = {len(leaf) for leaf in leaves}
        if len(lengths) > 1:
            found = ", ".join(map(str, sorted(lengths)))
            raise ValueError(f"{self.name}: its arrays differ in their number of examples: {found}")
        if lengths in (set(), {0}):
            raise ValueError(f"{self.name}: is empty")
        return lengths.pop()


def in_memory(source: Source) -> list[Batch]:
    """Return all batches, so that each evaluation sees the same examples in the same order.

    Raises:
        ValueError: They are without end, too many, or none.
    """
    endless = f"{source.name}: has no end; give a part of it, such as {source.name}.take(100)"
    if source.endless:
        raise ValueError(endless)
    batches: list[Batch] = []
    size = examples = 0
    for batch in source.epoch():
        if not isinstance(source.data, tuple | list):  # arrays were checked whole
            check_finite(tuple(batch), source.name)
        batches.append(batch)
        leaves = [leaf for leaf in keras.tree.flatten(tuple(batch)) if leaf is not None]
        if len(leaves[0].shape):
            examples += int(leaves[0].shape[0])
        size += sum(leaf.dtype.size * int(np.prod(leaf.shape)) for leaf in leaves if leaf.dtype.size)
        if examples > MOST_EXAMPLES:
            raise ValueError(f"{endless} (it has more than {MOST_EXAMPLES} examples)")
        if size > MOST_BYTES:
            raise ValueError(
                f"{source.name}: needs more than {MOST_BYTES // 2**30} GiB of memory; give fewer examples"
            )
    if not batches:
        raise ValueError(f"{source.name}: is empty")
    return batches


def check_finite(nest: Any, name: str) -> None:
    """Raise ValueError for a NaN or an infinite number: a metric may not show it."""
    for leaf in keras.tree.flatten(nest):
        values = np.asarray(leaf)
        if values.dtype.kind in "fc" and not np.isfinite(values).all():
            raise ValueError(
                f"{name}: holds NaN or infinite numbers; replace them, or leave these examples out"
            )


def check_inputs(model: keras.Model, batch: Batch, name: str) -> None:
    """Raise ValueError if the model can't read the batch's inputs, or if they are not batched."""
    structure = None if isinstance(model, keras.Sequential) else model.input
    # Of a dict, Keras sorts the keys.
    names = sorted(structure) if isinstance(structure, dict) else [tensor.name for tensor in model.inputs]
    if isinstance(batch.x, dict) and (missing := [each for each in names if each not in batch.x]):
        raise ValueError(f"{name}: the input '{missing[0]}' is missing; there are {', '.join(batch.x)}")
    given = keras.tree.flatten(by_name(batch.x, names))
    if len(given) != len(model.inputs):
        inputs = counted(len(given), "input")
        raise ValueError(f"{name}: has {inputs}, but the model has {len(model.inputs)}")
    for tensor, values in zip(model.inputs, given, strict=True):
        wanted, found = tuple(tensor.shape), tuple(values.shape)
        if len(found) == len(wanted) - 1 and fits(wanted[1:], found):
            raise ValueError(f"{name}: its examples are not batched; use {name}.batch(32)")
        if not fits(wanted, found) and not (len(found) == len(wanted) - 1 and wanted[-1] == 1):
            raise ValueError(f"{name}: inputs are of shape {found}, but the model takes {wanted}")


def by_name(nest: Any, names: list[str]) -> Any:
    """Return a dict's values in the order of `names`, and anything else as it is."""
    if isinstance(nest, dict) and set(names) <= set(nest):
        return [nest[name] for name in names]
    return nest


def fits(wanted: tuple[int | None, ...], found: tuple[int | None, ...]) -> bool:
    """Return whether two shapes agree wherever both are known."""
    return len(wanted) == len(found) and all(
        one is None or other is None or one == other for one, other in zip(wanted, found, strict=True)
    )


def described(value: Any) -> str:
    """Return what kind of thing a value is, in words."""
    name = type(value).__name__
    return f"a {name} of {len(value)}" if isinstance(value, tuple | list | dict) else f"a {name}"
