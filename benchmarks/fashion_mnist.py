"""A ResNet-20 on Fashion-MNIST: `selfscale.minimize` against Torch-Pruning, from the same initial network.

python benchmarks/fashion_mnist.py                  all, three seeds, half an hour of two cores
python benchmarks/fashion_mnist.py --quick          a trial run of some minutes
python benchmarks/fashion_mnist.py ours             one part again: ours, baseline or peer

The images are the means of 2x2 pixels (14x14). They are read from `--data`, a folder of four IDX files (as
Debian's package `dataset-fashion-mnist` installs them), or else fetched by `keras.datasets`.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import joblib
import keras
import numpy as np
import tensorflow as tf
from architectures import resnet20
from rows import Row

import selfscale
from selfscale import files
from selfscale.nn.graph import trace

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
IDX = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
POINTS = Path("benchmarks/performance/fashion_mnist-points.json")
INITIAL = Path(".selfscale/fashion-mnist")
BATCH, VALIDATION = 32, 10_000
SEEDS = (0, 1, 2)
TOLERANCES = (0.005, 0.01, 0.02)  # each a search of its own, as each share is one of the peer's
SHARES = (0.6, 0.4, 0.25)  # of the multiply-accumulates
OURS, BASELINE, PEER = "ours", "baseline", "peer"
PARTS = (OURS, BASELINE, PEER)


@dataclass(frozen=True)
class Point:
    """A network: what it costs relative to the initial one, and its accuracy.

    `steps` were taken after the initial training, for this network alone, or for all of a search.
    """

    seed: int
    part: str
    method: str
    macs: float
    steps: int
    test: float
    validation: float | None = None  # of ours
    within: bool = False  # the tolerance


Arrays = tuple[np.ndarray, np.ndarray]


class Data(NamedTuple):
    train: Arrays
    validation: Arrays
    test: Arrays


class Sizes(NamedTuple):
    """Steps of the initial training, and of everything after it; training images."""

    initial: int = 4000
    steps: int = 3000
    images: int = 50_000


QUICK = Sizes(300, 400, 2000)


def idx(path: Path) -> np.ndarray:
    """Return the array of a gzipped IDX file of bytes."""
    content = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(content, ">i4", content[3], 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def load(folder: Path | None, images: int) -> Data:
    """Return images in [0, 1] of shape `(N, 14, 14, 1)`, and classes; the last training images validate."""
    if folder is None and not DEBIAN.exists():
        (x, y), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()
    else:
        x, y, x_test, y_test = (idx((folder or DEBIAN) / name) for name in IDX)

    def means(images: np.ndarray) -> np.ndarray:
        return images.reshape(-1, 14, 2, 14, 2, 1).mean((2, 4), dtype=np.float32) / np.float32(255)

    x, x_test = means(x), means(x_test)
    train = x[:-VALIDATION][:images], y[:-VALIDATION][:images]
    return Data(train, (x[-VALIDATION:], y[-VALIDATION:]), (x_test, y_test))


def trained(data: Data, sizes: Sizes, seed: int) -> None:
    """Train the initial network, unless it is saved. Runs in a worker process."""
    use_one_thread()
    initial(data, sizes, seed)


def use_one_thread() -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def initial(data: Data, sizes: Sizes, seed: int) -> keras.Model:
    """Return the trained initial network, as it was saved if it was."""
    path = INITIAL / f"{sizes.initial}-{sizes.images}-{seed}.keras"
    if path.exists():
        return keras.saving.load_model(path)
    keras.utils.set_random_seed(seed)
    model = resnet20((14, 14, 1))
    rate = keras.optimizers.schedules.CosineDecay(0.1, sizes.initial)
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9, weight_decay=5e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    batches = tf.data.Dataset.from_tensor_slices(data.train).shuffle(len(data.train[0]), seed).repeat()
    model.fit(batches.batch(BATCH), steps_per_epoch=sizes.initial, epochs=1, verbose=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model


def accuracy(model: keras.Model, data: Arrays) -> float:
    outputs = model.predict(data[0], batch_size=500, verbose=0)
    return float((outputs.argmax(axis=1) == data[1]).mean())


def ours(model: keras.Model, data: Data, sizes: Sizes, seed: int) -> Iterator[Point]:
    """Yield the networks of each search's frontier."""
    for tolerance in TOLERANCES:
        result = selfscale.minimize(
            model,
            data.train,
            tf.data.Dataset.from_tensor_slices(data.validation).batch(500),
            tolerance=tolerance,
            optimizer=keras.optimizers.SGD(0.01, momentum=0.9),  # the rate of the peer
            budget={"steps": sizes.steps},
            batch_size=BATCH,
            seed=seed,
        )
        print(result.report(), file=sys.stderr)
        steps = sum(decision.steps for decision in result.decisions)
        for point in result.frontier:
            relative = point.size.macs / result.initial.size.macs
            test = accuracy(point.model, data.test)
            yield Point(
                seed, OURS, f"tolerance {tolerance}", relative, steps, test, point.score, point.within
            )


def in_torch(part: str, model: keras.Model, data: Data, sizes: Sizes, seed: int) -> Iterator[Point]:
    """Yield the baseline, or Torch-Pruning's networks, each fine-tuned for `sizes.steps`."""
    import torch
    import torch_resnet20 as peer

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    network, example = peer.from_keras(model), peer.as_tensor(data.test[0][:1])
    before = peer.macs(network, example)
    some = data.test[0][:500]
    difference = np.abs(peer.outputs(network, some) - model.predict(some, verbose=0)).max()
    if difference > 1e-4 or before != trace(model).cost().macs:
        raise AssertionError(f"not the same network: outputs differ by {difference:g}")

    def tuned(method: str, network: peer.ResNet20) -> Point:
        network = peer.finetune(network, data.train, sizes.steps, BATCH, seed)
        relative = peer.macs(network, example) / before
        return Point(seed, part, method, relative, sizes.steps, peer.accuracy(network, data.test))

    if part == BASELINE:
        yield Point(seed, part, "initial", 1.0, 0, peer.accuracy(network, data.test))
        yield tuned("trained on", network)
        return
    for importance in peer.IMPORTANCES:
        for smaller in peer.pruned(network, importance, SHARES, data.train, BATCH, seed):
            yield tuned(importance, smaller)


def points(part: str, data: Data, sizes: Sizes, seed: int) -> list[Point]:
    """Return the networks of one part and seed. Runs in a worker process."""
    use_one_thread()
    model = initial(data, sizes, seed)
    measured = ours(model, data, sizes, seed) if part == OURS else in_torch(part, model, data, sizes, seed)
    return list(measured)


def best(found: Sequence[Point], share: float) -> float:
    """Return the test accuracy of the best network of at most that share of the multiply-accumulates.

    Ours is chosen by its validation score, the peer's by its test score. None so small: not a number.
    """
    scores = [
        (each.test if each.validation is None else each.validation, each.test)
        for each in found
        if each.macs <= share
    ]
    return max(scores)[1] if scores else float("nan")


def measure() -> Iterator[Row]:
    """Measure everything anew, and yield rows for docs/performance.md."""
    found = run(PARTS, load(None, Sizes().images), Sizes(), SEEDS, POINTS)

    for share in SHARES:
        chosen = [
            [
                best([each for each in found if (each.seed, each.part) == (seed, part)], share)
                for seed in SEEDS
            ]
            for part in (OURS, PEER)
        ]
        yield Row(
            f"test accuracy with at most {share:.0%} of the MACs; Torch-Pruning",
            "",
            *chosen,
            allowed=f"the better of group norm and Taylor; as many steps ({Sizes().steps}) for each size as "
            "for each of our tolerances",
            at_least=1.0,
        )


def stored(path: Path) -> list[Point]:
    return [Point(**each) for each in files.read_json(path, "make bench")] if path.exists() else []


def run(parts: Sequence[str], data: Data, sizes: Sizes, seeds: Sequence[int], path: Path) -> list[Point]:
    """Measure some parts in place of what the file has of them; return all points.

    It is accuracy, not speed, that is measured: each core has a process, of one thread.
    """
    found = [each for each in stored(path) if not (each.part in parts and each.seed in seeds)]
    parallel = joblib.Parallel(joblib.cpu_count(), return_as="generator_unordered")
    list(parallel(joblib.delayed(trained)(data, sizes, seed) for seed in seeds))
    longest_first = sorted(parts, key=(PEER, OURS, BASELINE).index)
    jobs = [(part, seed) for part in longest_first for seed in seeds]
    for measured in parallel(joblib.delayed(points)(part, data, sizes, seed) for part, seed in jobs):
        print(*measured, sep="\n", file=sys.stderr, flush=True)
        found += measured
        files.write_json(path, [asdict(each) for each in found])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="|".join(PARTS))
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="four gzipped IDX files")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--quick", action="store_true", help="few steps and images, one seed")
    parser.add_argument("--out", type=Path, default=POINTS)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(PARTS)}")
    if options.data and not all((options.data / name).exists() for name in IDX):
        parser.error(f"{options.data}: must have {', '.join(IDX)}")
    sizes, seeds = (QUICK, [0]) if options.quick else (Sizes(), options.seeds)
    run(options.parts or PARTS, load(options.data, sizes.images), sizes, seeds, options.out)


if __name__ == "__main__":
    main()
