"""Architectures of keras.applications: a random part of the channels and branches goes, exactly."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from pages import CHECKOUT, blocks
from selfscale.nn.graph import trace
from selfscale.nn.graph_recording import RULES
from selfscale.nn.rewriting import rewrite

# Groups and channels as counted from the architectures: see docs/any-model.md.
FOUND = {
    "MobileNetV2": (25, 9_128, 10),
    "ResNet50V2": (37, 11_456, 16),
    "EfficientNetB0": (40, 11_404, 9),
    "DenseNet121": (120, 10_240, 0),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_known_architecture_is_compacted_exactly(name):
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=5)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(weight.numpy() + 0.1 * rng.random(weight.shape))
    graph = trace(model)
    groups = graph.removable()
    assert (len(groups), sum(group.size for group in groups), len(graph.branches)) == FOUND[name]
    keep = {group.index: np.arange(group.size) % 3 != rng.integers(3) for group in groups}
    without = graph.branches[::2]
    compact = rewrite(model, graph, keep, without=without)  # which compares the outputs
    cost = graph.cost(keep, without)
    assert cost.parameters == compact.count_params() < model.count_params() / 1.5
    assert trace(compact).cost() == cost


def test_the_code_of_the_page_runs():
    names = {}
    for block in blocks(CHECKOUT / "docs" / "architectures.md"):
        if block.language == "python":
            exec(block.code, names)
    assert names["Scale"] in RULES
    before, after = names["graph"].cost(), names["graph"].cost(names["keep"])
    assert names["smaller"].count_params() < after.parameters < before.parameters / 2
