from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from skimage.filters import sobel

from conftest import pictures
from selfscale.data_config import Task
from selfscale.decisions import Filter
from selfscale.errors import UserError
from selfscale.inference import visualize as visualizing
from selfscale.inference.image_files import find
from selfscale.inference.layer_views import read_view
from selfscale.inference.visualize import middle, target_of, visualize
from selfscale.nn import compaction
from selfscale.nn.fcn import build
from selfscale.nn.layer_removal import with_layers
from selfscale.nn.masking import MaskedNetwork
from stores import record


@pytest.fixture
def minimized(tmp_path) -> Path:
    """A minimization's folder: of 3, 2, 4 filters, layer 1 and filters 0.1, 2.0 and 2.3 are removed."""
    network = with_layers(MaskedNetwork(build([3, 2, 4], kernel=3, deviation=0.4, seed=(1,))), [0, 2])
    for filter in (Filter(0, 1), Filter(2, 0), Filter(2, 3)):
        network.disable(filter)
    compaction.compact(network).save(tmp_path / "compact.keras")
    np.save(tmp_path / "removed_filters.npy", compaction.removed_filters(network))
    records = [
        record(1, alteration="remove_layer", filters=(Filter(1, 0), Filter(1, 1))),
        record(2, filters=(Filter(0, 0),), accepted=False),
        record(3, alteration="reinitialize", filters=(Filter(0, 2),)),
        record(4, filters=(Filter(2, 0), Filter(2, 3))),
    ]
    (tmp_path / "decisions.json").write_text(json.dumps([asdict(record) for record in records]))
    (tmp_path / "result.json").write_text('{"filters_grown": [3, 2, 4], "task": "sobel"}')
    return tmp_path / "compact.keras"


def shown(figures) -> dict[str, list[str]]:
    """The texts in each figure's cells: labels of filters, and what removed ones say."""
    return {
        name: [t.get_text() for t in draw().axes[0].texts if t.get_text()] for name, draw in figures.items()
    }


def test_removed_filters_and_layers_are_crossed_out_with_their_decisions(minimized):
    model = keras.saving.load_model(minimized)
    figures = visualizing.kernel_figures(read_view(model, minimized), "thesis")
    assert shown(figures) == {
        "kernels-0.png": ["0.0", "0.1", "removed", "0.2"],
        "kernels-1.png": ["1.0", "decision 1", "1.1", "decision 1"],
        "kernels-2.png": ["2.0", "decision 4", "2.1", "2.2", "2.3", "decision 4"],
        "kernels-3.png": ["3.0"],
    }
    axes = {name: draw().axes[0] for name, draw in figures.items()}
    rows = {name: [text.get_text() for text in ax.get_yticklabels()] for name, ax in axes.items()}
    assert rows["kernels-2.png"] == ["reads 0.0", "reads 0.2"]
    assert rows["kernels-3.png"] == ["reads 2.1", "reads 2.2"]
    # 2.1 is the first filter of the compact layer, in the second column.
    array = np.ma.filled(axes["kernels-2.png"].images[0].get_array(), np.nan)
    np.testing.assert_array_equal(array[:3, 4:7], model.layers[2].kernel.numpy()[:, :, 0, 0])


def test_any_other_network_has_all_its_filters(minimized, tmp_path):
    model = build([2, 1], kernel=3)
    for path in (tmp_path / "other.keras", tmp_path / "none" / "compact.keras"):
        view = read_view(model, path)
        assert [removed.tolist() for removed in view.removed] == [[False, False], [False], [False]]
    with pytest.raises(UserError, match="belongs to another network"):
        read_view(model, minimized)
    minimized.with_name("decisions.json").write_text("[{}]")
    with pytest.raises(UserError, match="is damaged"):
        read_view(keras.saving.load_model(minimized), minimized)


def test_files_for_each_image_with_the_operators_target(tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        Image.fromarray(pictures(1, seed=0)[0, ..., 0]).save(tmp_path / name)
    (tmp_path / "c.png").write_text("no image")
    seen = {}
    real = visualizing.draw_comparison
    monkeypatch.setattr(
        visualizing,
        "draw_comparison",
        lambda name, image, target, *rest: seen.update({name: target}) or real(name, image, target, *rest),
    )
    view = read_view(build([2, 1], kernel=3, deviation=0.4), Path("x.keras"))
    found = find([str(tmp_path)], tmp_path / "out")
    done = visualize(view, found, tmp_path / "out", target_of(Task(operator="sobel", loss="mae")))
    assert next(done) is None and next(done) is None
    assert "c.png: skipped: broken" in next(done)
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")}
    each = ("comparison.png", "network.png", *(f"output-{layer}.png" for layer in range(3)))
    kernels = {f"kernels-{layer}.png" for layer in range(3)}
    assert files == kernels | {f"{name}/{file}" for name in "ab" for file in each}
    np.testing.assert_allclose(seen["a.png"], sobel(pictures(1, seed=0)[0, ..., 0] / 255), atol=1e-3)


def test_of_large_images_the_middle_is_shown():
    image = np.random.default_rng(0).integers(0, 256, (1030, 900), np.uint8)
    np.testing.assert_array_equal(middle(image), image[3:1027])
