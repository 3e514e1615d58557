"""Rules of layers for sequences: attention, whose heads are channels of its own, and recurrent layers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from keras import layers

from selfscale.nn.graph_recording import RULES, OpaqueError, Tensor, Use, register_rule
from selfscale.nn.graph_rules import ELEMENTWISE

QUERY, VALUE, KEY = "query", "value", "key"
ARGUMENTS = (QUERY, VALUE, KEY, "query_mask", "value_mask", "key_mask", "attention_mask")


@register_rule(layers.MultiHeadAttention)
def multi_head_attention(use: Use) -> np.ndarray:
    """Let whole heads go, and what all heads take from the values: both are summed up by the output.

    The size of the keys stays: a softmax is over their product with the queries.
    """
    layer, given = use.layer, dict(zip(ARGUMENTS, use.arguments[0], strict=False)) | use.arguments[1]
    if getattr(layer, "_use_gate", False):
        raise OpaqueError("it has a gate")
    if len(layer.output_dense.kernel.shape) != 3:
        raise OpaqueError("its output has several axes")
    given[KEY] = given[VALUE] if given.get(KEY) is None else given[KEY]
    for name, each in given.items():
        if isinstance(each, Tensor) and name not in (QUERY, VALUE, KEY):
            use.recording.pin(each.ids, f"a mask of {use.path[-1]!r}")
    ids = {name: use.channels(given[name]) for name in (QUERY, VALUE, KEY)}
    heads = use.inside("heads", layer.num_heads)
    values = use.inside("values", layer.value_dim)
    for name, each in ids.items():
        use.read(f"{name}_dense.kernel", 0, each)
        for weight, axis in ((f"{name}_dense.kernel", 1), (f"{name}_dense.bias", 0)):
            use.compute(weight, axis, heads)
            if name == VALUE:
                use.compute(weight, axis + 1, values)
        use.multiply(f"{name}_dense.kernel", given[name].shape[1:-1])
    use.read("output_dense.kernel", 0, heads)
    use.read("output_dense.kernel", 1, values)
    outputs = use.produce(layer.output_dense.kernel.shape[2])
    use.compute("output_dense.kernel", 2, outputs)
    use.compute("output_dense.bias", 0, outputs)
    use.multiply("output_dense.kernel", use.output.shape[1:-1])
    attended = math.prod(given[KEY].shape[axis] or 1 for axis in layer.attention_axes)
    pairs = math.prod(size or 1 for size in given[QUERY].shape[1:-1]) * attended
    use.pair(pairs * layer.key_dim, heads)
    use.pair(pairs, heads, values)
    use.count("num_heads", heads)
    use.count("value_dim", values)
    if isinstance(use.config["output_shape"], list | tuple):
        use.count("output_shape", outputs, 0)
    else:
        use.count("output_shape", outputs)
    return outputs


@register_rule(layers.SimpleRNN, layers.GRU, layers.LSTM)
def recurrent(use: Use) -> np.ndarray:
    return _units(use, "units", use.inputs[0].shape[1:-1], ())


@register_rule(*(getattr(layers, f"ConvLSTM{rank}D") for rank in (1, 2, 3)))
def convolutional_recurrent(use: Use) -> np.ndarray:
    rank = len(use.layer.cell.kernel_size)
    return _units(use, "filters", use.inputs[0].shape[1:2], use.output.shape[-1 - rank : -1])


def _units(use: Use, key: str, times: tuple[Any, ...], positions: tuple[Any, ...]) -> np.ndarray:
    """Read channels and the layer's own units of the step before; a unit has a part in each gate."""
    layer, ids = use.layer, use.ids
    for name in ("activation", "recurrent_activation"):
        if getattr(layer.cell, name, None) not in (None, *ELEMENTWISE):
            raise OpaqueError(f"its {name} may mix units")
    if layer.stateful:
        raise OpaqueError("it keeps its state from batch to batch")
    units = use.produce(getattr(layer.cell, key))
    gates = layer.cell.kernel.shape[-1] // len(units)
    use.read("cell.kernel", -2, ids)
    use.read("cell.recurrent_kernel", -2, units)
    for weight in ("cell.kernel", "cell.recurrent_kernel", "cell.bias"):
        use.compute(weight, -1, np.tile(units, gates))
    for weight in ("cell.kernel", "cell.recurrent_kernel"):
        use.multiply(weight, (*times, *positions))
    use.count(key, units)
    return units


@register_rule(layers.Bidirectional)
def bidirectional(use: Use) -> np.ndarray:
    """Couple the units of both directions: Keras takes them to have the same number."""
    mode, found = use.layer.merge_mode, []
    for name, key in (("forward_layer", "layer"), ("backward_layer", "backward_layer")):
        found.append(_wrapped(use, getattr(use.layer, name), name, key, use.inputs, use.output))
    if mode is None or len(found[0]) != len(found[1]):
        raise OpaqueError("its directions are several outputs, or differ")
    return np.concatenate(found) if mode == "concat" else found[0]


@register_rule(layers.TimeDistributed)
def time_distributed(use: Use) -> np.ndarray:
    """Do what the wrapped layer does at each time."""
    inputs = [Tensor((each.shape[0], *each.shape[2:]), each.dtype, each.ids) for each in use.inputs]
    output = Tensor((use.output.shape[0], *use.output.shape[2:]), use.output.dtype, None)
    within = dataclasses.replace(use, times=use.output.shape[1] or 1)
    return _wrapped(within, use.layer.layer, "layer", "layer", inputs, output)


def _wrapped(use: Use, layer: Any, name: str, key: str, inputs: list[Tensor], output: Tensor) -> np.ndarray:
    """Apply the rule of a layer in another."""
    rule = RULES.get(type(layer))
    if rule is None or use.inner[0]:
        raise OpaqueError(f"no rule for {type(layer).__name__} in it")
    return rule(
        dataclasses.replace(
            use,
            layer=layer,
            config=use.config[key]["config"],
            inputs=inputs,
            output=output,
            arguments=(list(inputs), {}),
            inner=(f"{name}.", (key, "config")),
        )
    )
