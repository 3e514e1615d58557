"""A ResNet-20 on Fashion-MNIST: `selfscale.minimize` against Torch-Pruning, from the same initial network.

`minimize` finds a size for each tolerance. Torch-Pruning is told that size.

python benchmarks/fashion_mnist.py                  all, three seeds, half an hour of two cores
python benchmarks/fashion_mnist.py --quick          a trial run of some minutes
python benchmarks/fashion_mnist.py ours             one part again: ours, baseline, or peer (at stored sizes)

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
TRIAL = INITIAL / "quick.json"  # a trial run does not replace what was measured
BATCH, VALIDATION = 32, 10_000
SEEDS = (0, 1, 2)
# Each a search of its own, as each size is one of the peer's.
TOLERANCES = {f"tolerance {tolerance}": tolerance for tolerance in (0.005, 0.01, 0.02)}
OURS, BASELINE, PEER = "ours", "baseline", "peer"
METHODS = {
    OURS: list(TOLERANCES),
    BASELINE: ["trained on"],
    PEER: ["Taylor", "group norm"],
}


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


def ours(model: keras.Model, data: Data, sizes: Sizes, seed: int, method: str) -> Iterator[Point]:
    """Yield the networks of a search's frontier."""
    result = selfscale.minimize(
        model,
        data.train,
        tf.data.Dataset.from_tensor_slices(data.validation).batch(500),
        tolerance=TOLERANCES[method],
        # The peer's. Keras decays weights beside the momentum, PyTorch within it, which makes it tenfold.
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=5e-3),
        budget={"steps": sizes.steps},
        batch_size=BATCH,
        seed=seed,
    )
    print(result.report(), file=sys.stderr)
    steps = sum(decision.steps for decision in result.decisions)
    for point in result.frontier:
        relative = point.size.macs / result.initial.size.macs
        test = accuracy(point.model, data.test)
        yield Point(seed, OURS, method, relative, steps, test, point.score, point.within)


def in_torch(
    part: str, model: keras.Model, data: Data, sizes: Sizes, seed: int, method: str, shares: Sequence[float]
) -> Iterator[Point]:
    """Yield the baseline, or Torch-Pruning's network at each share, each fine-tuned for `sizes.steps`."""
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
    networks = [network]
    if part == BASELINE:
        yield Point(seed, part, "initial", 1.0, 0, peer.accuracy(network, data.test))
    else:
        networks = peer.pruned(network, method, shares, data.train, BATCH, seed)
    for smaller in networks:
        tuned = peer.finetune(smaller, data.train, sizes.steps, BATCH, seed)
        relative = peer.macs(tuned, example) / before
        yield Point(seed, part, method, relative, sizes.steps, peer.accuracy(tuned, data.test))


def points(
    part: str, data: Data, sizes: Sizes, seed: int, method: str, shares: Sequence[float]
) -> list[Point]:
    """Return the networks of one part, seed and method. Runs in a worker process."""
    use_one_thread()
    model = initial(data, sizes, seed)
    if part == OURS:
        return list(ours(model, data, sizes, seed, method))
    return list(in_torch(part, model, data, sizes, seed, method, shares))


def results(found: Sequence[Point], seed: int) -> list[Point]:
    """Return the smallest network within each tolerance, of one seed."""
    return [
        min(
            (each for each in found if each.within and (each.seed, each.method) == (seed, method)),
            key=lambda point: point.macs,
        )
        for method in TOLERANCES
    ]


def sizes_found(found: Sequence[Point], seed: int) -> list[float]:
    """Return shares of the multiply-accumulates, the largest first."""
    return sorted((each.macs for each in results(found, seed)), reverse=True)


def best_peer(found: Sequence[Point], ours: Point) -> Point:
    """Return the peer's network of the best test accuracy, of those no larger than ours."""
    peers = [each for each in found if (each.seed, each.part) == (ours.seed, PEER)]
    return max((each for each in peers if each.macs <= ours.macs), key=lambda point: point.test)


def measure() -> Iterator[Row]:
    """Measure everything anew, and yield rows for docs/performance.md."""
    yield from compared(run(list(METHODS), load(None, Sizes().images), Sizes(), SEEDS, POINTS))


def compared(found: Sequence[Point]) -> Iterator[Row]:
    """Yield the row of each tolerance."""
    for method, *chosen in zip(TOLERANCES, *(results(found, seed) for seed in SEEDS), strict=True):
        shares = ", ".join(f"{each.macs:.0%}" for each in chosen)
        yield Row(
            f"test accuracy at the size found with {method}; Torch-Pruning",
            "",
            [each.test for each in chosen],
            [best_peer(found, each).test for each in chosen],
            allowed=f"that size: {shares} of the MACs; the better of group norm and Taylor; as many steps "
            f"({Sizes().steps}) for each size as for each of our tolerances",
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
    for part in [part for part in METHODS if part in parts]:  # ours come first: they give the peer its sizes
        jobs = [
            (part, data, sizes, seed, method, sizes_found(found, seed) if part == PEER else [])
            for seed in seeds
            for method in METHODS[part]
        ]
        for measured in parallel(joblib.delayed(points)(*job) for job in jobs):
            print(*measured, sep="\n", file=sys.stderr, flush=True)
            found += measured
            files.write_json(path, [asdict(each) for each in found])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="|".join(METHODS))
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="four gzipped IDX files")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--quick", action="store_true", help="few steps and images, one seed")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: {POINTS}, or {TRIAL} if quick")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(METHODS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(METHODS)}")
    if options.data and not all((options.data / name).exists() for name in IDX):
        parser.error(f"{options.data}: must have {', '.join(IDX)}")
    sizes, seeds, out = (QUICK, [0], TRIAL) if options.quick else (Sizes(), options.seeds, POINTS)
    parts, out = options.parts or list(METHODS), options.out or out
    searched = {each.seed for each in stored(out) if each.part == OURS}
    if PEER in parts and OURS not in parts and not searched.issuperset(seeds):
        parser.error(f"{out}: has no sizes for the peer; measure ours first, or with it")
    run(parts, load(options.data, sizes.images), sizes, seeds, out)


if __name__ == "__main__":
    main()
