"""Rules of layers for sequences: attention, whose heads are channels of its own, and recurrent layers."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np
from keras import layers

from selfscale.nn.graph_recording import RULES, OpaqueError, Tensor, Use, register_rule, weight_of
from selfscale.nn.graph_rules import ELEMENTWISE, activated

QUERY, VALUE, KEY = "query", "value", "key"
ARGUMENTS = (QUERY, VALUE, KEY, "query_mask", "value_mask", "key_mask", "attention_mask")


@register_rule(layers.MultiHeadAttention)
def multi_head_attention(use: Use) -> np.ndarray:
    """Let whole heads go, and what all heads take from the values: both are summed up by the output.

    The size of the keys stays: a softmax is over their product with the queries.
    """
    layer = use.layer
    if len(layer.output_dense.kernel.shape) != 3:
        raise OpaqueError("its output has several axes")
    given = _attended(use)
    heads, values = use.inside("heads", layer.num_heads), use.inside("values", layer.value_dim)
    outputs = _project(use, given, "", heads, heads, values)
    pairs = math.prod(given[KEY].shape[axis] or 1 for axis in layer.attention_axes)
    pairs *= math.prod(size or 1 for size in given[QUERY].shape[1:-1])
    use.pair(pairs * layer.key_dim, heads)
    use.pair(pairs, heads, values)
    use.count("num_heads", heads)
    use.count("value_dim", values)
    use.count("output_shape", outputs, *([0] if isinstance(use.config["output_shape"], list | tuple) else []))
    return outputs


@register_rule(layers.GroupQueryAttention)
def group_query_attention(use: Use) -> np.ndarray:
    """Let heads of keys and values go, each with the heads of queries that share it."""
    layer, given = use.layer, _attended(use)
    heads = use.inside("heads", layer.num_key_value_heads)
    queries = np.repeat(heads, layer.num_repeats)
    outputs = _project(use, given, "_", heads, queries, None)
    use.recording.couple(outputs, use.channels(given[QUERY]))  # Keras takes their number from there
    pairs = math.prod(given[name].shape[1] or 1 for name in (QUERY, KEY))
    use.pair(2 * pairs * layer.head_dim, queries)
    use.count("num_query_heads", queries)
    use.count("num_key_value_heads", heads)
    return outputs


def _attended(use: Use) -> dict[str, Tensor]:
    """Return query, value and key, which may be the value; pin what masks them."""
    given = dict(zip(ARGUMENTS, use.arguments[0], strict=False)) | use.arguments[1]
    given[KEY] = given[VALUE] if given.get(KEY) is None else given[KEY]
    if any(getattr(use.layer, name, False) for name in ("use_gate", "_use_gate")):
        raise OpaqueError("it has a gate")
    for name, each in given.items():
        if isinstance(each, Tensor) and name not in (QUERY, VALUE, KEY):
            use.recording.pin(each.ids, f"a mask of {use.path[-1]!r}")
    return {name: given[name] for name in (QUERY, VALUE, KEY)}


def _project(
    use: Use,
    given: dict[str, Tensor],
    prefix: str,
    heads: np.ndarray,
    queries: np.ndarray,
    values: np.ndarray | None,
) -> np.ndarray:
    """Read the inputs, compute the heads, read them again; return the outputs."""
    ids = {name: use.channels(each) for name, each in given.items()}
    for name, tensor in given.items():
        kernel, bias = f"{prefix}{name}_dense.kernel", f"{prefix}{name}_dense.bias"
        use.read(kernel, 0, ids[name])
        for weight, axis in ((kernel, 1), (bias, 0)):
            use.compute(weight, axis, queries if name == QUERY else heads)
            if name == VALUE and values is not None:
                use.compute(weight, axis + 1, values)
        use.multiply(kernel, tensor.shape[1:-1])
    kernel = f"{prefix}output_dense.kernel"
    use.read(kernel, 0, queries)
    if values is not None:
        use.read(kernel, 1, values)
    outputs = use.produce(weight_of(use.layer, kernel).shape[2])
    use.compute(kernel, 2, outputs)
    use.compute(f"{prefix}output_dense.bias", 0, outputs)
    use.multiply(kernel, use.output.shape[1:-1])
    return outputs


@register_rule(layers.Attention, layers.AdditiveAttention)
def plain_attention(use: Use) -> np.ndarray:
    """Pass the values on. Queries and keys go together if a weight of the layer reads them, or else stay."""
    if len(use.arguments[0]) != 1:
        raise OpaqueError("it has a mask")
    every = [use.channels(tensor) for tensor in use.inputs]
    query, values, keys = every[0], every[1], every[-1]
    weights = {weight.name: weight for weight in use.layer.weights}
    if "scale" in weights and tuple(weights["scale"].shape) == query.shape:
        use.recording.couple(query, keys)
        use.read("scale", 0, query)
    else:
        for ids in (query, keys):
            use.recording.pin(ids, f"queries and keys that {use.path[-1]!r} compares")
        for name in weights:
            use.leave(name)
    pairs = math.prod(tensor.shape[1] or 1 for tensor in use.inputs[:2])
    for ids in (query, values):
        use.pair(pairs, ids)
    return values


@register_rule(layers.EinsumDense)
def einsum_dense(use: Use) -> np.ndarray:
    """Read the input's last axis and produce the output's, as a dense layer does."""
    layer, ids, shape = use.layer, use.ids, use.output.shape
    given, kernel, output = re.split(",|->", layer.equation.replace(" ", ""))
    read, produced = given[-1], output[-1]
    if read not in kernel or read in output or produced not in kernel or produced in given:
        raise OpaqueError(f"its equation {layer.equation!r} is more than a product over the last axis")
    use.read("kernel", kernel.index(read), ids)
    outputs = use.produce(shape[-1] or 0, kernel=kernel.index(produced))
    use.compute("bias", -1, outputs)
    use.count("output_shape", outputs, len(use.config["output_shape"]) - 1)
    axes = output.replace("...", "").rjust(len(shape), ".")
    use.multiply(
        "kernel", [size for axis, size in zip(axes[1:], shape[1:], strict=True) if axis not in kernel]
    )
    return activated(use, outputs)


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
