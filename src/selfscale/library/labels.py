"""Whether losses, targets and sample weights fit the outputs of a model: one line where Keras says others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from selfscale.errors import counted
from selfscale.library.examples import Batch, fits
from selfscale.library.sums import at, check_names, output_names


def check_loss(model: keras.Model, loss: Any) -> None:
    """Raise ValueError if losses by output are of other outputs than the model's."""
    names = output_names(model)
    check_names(loss, names, (), "loss")
    if isinstance(loss, list | tuple) and len(loss) != len(names):
        outputs = counted(len(names), "output")
        raise ValueError(f"loss: there are {len(loss)}, but the model has {outputs}: {', '.join(names)}")


def check_labels(model: keras.Model, loss: Any, batch: Batch, where: str) -> None:
    """Raise ValueError if targets or sample weights by output are of other outputs than the model's."""
    names = output_names(model)
    for nest, parts in ((batch.y, "targets"), (batch.weights, "sample weights")):
        if isinstance(nest, Mapping) and isinstance(model.output, keras.KerasTensor):
            raise ValueError(f"{where}: {parts} are a dict, but the model has one output; give an array")
        if isinstance(nest, list | tuple) and len(nest) != len(names):
            raise ValueError(
                f"{where}: there are {len(nest)} {parts}, but the model has {counted(len(names), 'output')}: "
                f"{', '.join(names)}"
            )
    several = isinstance(loss, Mapping | list | tuple)
    needed = [name for name in names if not several or at(loss, name, names) is not None]
    check_names(batch.y, names, needed, f"{where}: targets")
    check_names(batch.weights, names, needed, f"{where}: sample weights")


def check_targets(model: keras.Model, loss: Any, batches: Sequence[Batch], where: str) -> None:
    """Raise ValueError if targets do not fit the outputs, where the loss is one of Keras."""
    check_labels(model, loss, batches[0], where)
    names = output_names(model)
    several = isinstance(loss, Mapping | list | tuple)
    outputs = model.outputs
    for name, output in zip(names, outputs, strict=True):
        kind = kind_of(at(loss, name, names) if several else loss)
        target = at(batches[0].y, name, names)
        if not kind or target is None or keras.tree.is_nested(target):
            continue
        if target.dtype == tf.string:
            raise ValueError(f"{where}: the targets of {name} are text; give numbers of classes instead")
        shape, found = tuple(output.shape), tuple(target.shape)
        sparse = "sparse" in kind
        wanted = shape[:-1] if sparse else shape
        squeezed = (*wanted, 1) if sparse else wanted[:-1] if wanted[-1:] == (1,) else wanted
        if not (fits(wanted, found) or fits(squeezed, found)):
            raise ValueError(
                f"{where}: the targets of {name} are of shape {found}, but {kind} of its outputs "
                f"{shape} takes {wanted}"
            )
        if sparse and shape[-1]:
            highest = max(int(np.max(at(b.y, name, names))) for b in batches)
            if highest >= shape[-1]:
                raise ValueError(
                    f"{where}: the targets of {name} have class {highest}, but it has "
                    f"{shape[-1]} outputs, for the classes 0 to {shape[-1] - 1}"
                )


def kind_of(loss: Any) -> str:
    """Return the name of one of Keras's own losses that compare outputs with targets; or else nothing."""
    if isinstance(loss, str):
        return loss
    if isinstance(loss, keras.losses.Loss) and type(loss).__module__.startswith("keras."):
        return str(loss.name)
    own = getattr(loss, "__module__", "").startswith("keras.")
    return str(loss.__name__) if own and hasattr(loss, "__name__") else ""
