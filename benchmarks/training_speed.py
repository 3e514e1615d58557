"""Training steps: against Keras' `fit` and PyTorch, whole images, and what surrounds the compiled step."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from rows import TASK, Row, in_turns, seconds, settings

from selfscale.nn import blocking, devices
from selfscale.nn.input_pipeline import draw
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.optimizers import learning_rates
from selfscale.nn.trainer import Plan, Trainer
from selfscale.pipeline import train as pipeline

STEPS = 300
REPETITIONS = 5
GOAL = 0.008
MORE = 12  # times as long as crops took, whole images may try


def trainer(seed: int = 0, crop: int | None = 64, widths: Sequence[int] = (5, 5), **more: Any) -> Trainer:
    """`more`: other settings of training."""
    chosen = settings().starting_from(widths)
    training = chosen.training.model_copy(update={"crop": crop, **more})
    chosen = chosen.model_copy(update={"training": training})
    model = pipeline.new_network(chosen, TASK, seed, 0, 0)
    return pipeline.trainer_for(chosen, TASK, MaskedNetwork(model))


def measure() -> Iterator[Row]:
    yield from against_frameworks((5, 5), at_least=1.5)
    yield from against_frameworks((3, 2), at_least=1.8)
    yield from against_ourselves()
    yield outside()
    yield determinism()
    yield whole_images()


def against_frameworks(widths: Sequence[int], at_least: float) -> Iterator[Row]:
    import torch
    from peers import OPTIMIZERS, as_batch, network, step

    ours = trainer(widths=widths)
    training = ours.settings
    rng = np.random.default_rng(0)
    rates = learning_rates(STEPS, training.learning_rate, training.warmup)
    crops = draw(ours.train, (STEPS, training.batch), training.crop, rng)
    images = crops.images.reshape(-1, *crops.images.shape[2:]).astype("float32") / 255
    targets = crops.targets.reshape(-1, *crops.targets.shape[2:]).astype("float32")
    plain = keras.models.clone_model(ours.network.model)
    plain.compile(keras.optimizers.Adam(training.learning_rate, global_clipnorm=training.clip_norm), "mae")
    torch.set_num_threads(settings().execution.threads)
    batches = [
        (as_batch(images[i : i + training.batch], 1.0), as_batch(targets[i : i + training.batch], 1.0))
        for i in range(0, len(images), training.batch)
    ]

    def fit() -> None:
        plain.fit(images, targets, batch_size=training.batch, shuffle=False, verbose=0)

    def loop(name: str) -> Callable[[], float]:
        peer, chosen = network(list(widths), 0, 0.05), OPTIMIZERS[name]
        optimizer = chosen.make(peer.parameters(), lr=chosen.learning_rate)

        def steps() -> None:
            for batch in batches:
                step(peer, optimizer, *batch, chosen.clip_norm)

        return lambda: STEPS / seconds(steps)

    mine, keras_fit, *pytorch = in_turns(
        REPETITIONS,
        lambda: STEPS / seconds(lambda: ours._advance(rates, rng)),
        lambda: STEPS / seconds(fit),
        *map(loop, OPTIMIZERS),
    )
    what = f"training steps: batches of 8 crops of 64x64, network {tuple(widths)}"
    threads = f"{settings().execution.threads} thread each"
    ready = "its crops lie ready in memory; ours are drawn from disk in the measured time"
    yield Row(f"{what}, SOAP; Keras `fit`, Adam", "steps/s", mine, keras_fit, f"{threads}; {ready}")
    allowed = f"{threads}, channels last, no compilation; {ready}"
    for name, theirs in zip(OPTIMIZERS, pytorch, strict=True):
        peer = f"PyTorch {torch.__version__}, {name}"
        yield Row(f"{what}, SOAP; {peer}", "steps/s", mine, theirs, allowed, at_least=at_least)


def against_ourselves() -> Iterator[Row]:
    """What blocks of pixels gain, and what SOAP costs."""
    rates = learning_rates(STEPS, 0.005, 0.1)

    def rate(optimizer: str, blocks: bool) -> Callable[[], float]:
        blocking.allow(blocks)
        ours, rng = trainer(optimizer=optimizer), np.random.default_rng(0)
        ours._advance(rates[:1], rng)  # traces
        blocking.allow(True)
        return lambda: STEPS / seconds(lambda: ours._advance(rates, rng))

    blocked, plain, soap = in_turns(REPETITIONS, rate("adam", True), rate("adam", False), rate("soap", True))
    what = "training steps of the network (5, 5)"
    yield Row(f"{what}, on blocks; on images", "steps/s", blocked, plain, "Adam", at_least=1.5)
    yield Row(f"{what}, SOAP; Adam", "steps/s", soap, blocked, "on blocks")


def outside() -> Row:
    """What drawing, converting and Python add to the compiled steps themselves."""
    ours = trainer()
    rng = np.random.default_rng(0)
    rates = learning_rates(STEPS, 0.005, 0.1)
    crops = ours.feed.chunk((STEPS, ours.settings.batch), rng)

    whole, inside = in_turns(
        REPETITIONS,
        lambda: seconds(lambda: ours._advance(rates, rng)),
        lambda: seconds(lambda: float(ours._steps(crops, rates))),
    )
    return Row(
        "a session's steps with all that surrounds them; the compiled steps alone",
        "s",
        whole,
        inside,
        "the same steps in one call, all crops drawn before",
        at_most=1.05,
    )


def determinism() -> Row:
    """In processes of their own, since it cannot be turned off again."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(REPETITIONS):
        for deterministic, found in times.items():
            words = [sys.executable, __file__, json.dumps(deterministic)]
            found.append(float(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
    on, off = times.values()
    return Row("deterministic operations; without", "s", on, off, "`execution.deterministic: false`")


def whole_images() -> Row:
    """Seconds of training until the validation MAE is 0.008, in cycles as long as the first session's."""
    crops, wholes, given_up = [], [], 0
    for seed in range(REPETITIONS):
        quick, _ = until(GOAL, trainer(seed), seed, limit=600.0)
        slow, reached = until(GOAL, trainer(seed, crop=None), seed, limit=MORE * quick)
        crops.append(quick)
        wholes.append(slow)
        given_up += not reached
    note = f"{given_up} of {REPETITIONS} seeds did not reach it in {MORE} times our seconds: stopped there"
    return Row(
        "seconds to validation MAE 0.008: whole images of 256x256; crops of 64x64",
        "s",
        wholes,
        crops,
        "the same optimizer, schedule and batch of 8; evaluated as often in seconds",
        at_least=10,
        note=note if given_up else "",
    )


def until(goal: float, ours: Trainer, seed: int, limit: float) -> tuple[float, bool]:
    """Seconds of training until the score is reached, or `limit`."""
    ours._advance(np.zeros(1, np.float32), np.random.default_rng(0))  # compiles
    taken = 0.0
    first = ours.settings.first
    for cycle in range(1000):
        rng = np.random.default_rng((seed, cycle))
        plan = Plan(first.steps, 4 if ours.settings.crop else 40)
        rates = learning_rates(plan.steps, ours.settings.learning_rate, ours.settings.warmup)
        step = 0
        for pause in plan.pauses:
            started = time.perf_counter()
            ours._advance(rates[step:pause], rng)
            taken += time.perf_counter() - started
            step = pause
            if ours.evaluate_loss() <= goal:
                return taken, True
            if taken >= limit:
                return taken, False
    return taken, False


def one_process(deterministic: bool) -> None:
    chosen = settings()
    devices.configure(chosen.execution.model_copy(update={"deterministic": deterministic}))
    ours = trainer()
    rates = learning_rates(STEPS, 0.005, 0.1)
    ours._advance(rates, np.random.default_rng(0))
    print(seconds(lambda: ours._advance(rates, np.random.default_rng(0))))


if __name__ == "__main__":
    one_process(json.loads(sys.argv[1]))
