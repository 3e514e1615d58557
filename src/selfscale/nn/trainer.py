"""Training sessions: many steps per call of one compiled function, evaluations in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from selfscale.config import Training
from selfscale.data.prepare import Split
from selfscale.errors import UserError
from selfscale.nn.devices import half_precision
from selfscale.nn.feeding import Feed, Streamed
from selfscale.nn.input_pipeline import learning_rates
from selfscale.nn.losses import LOSSES, ratio
from selfscale.nn.masking import MaskedNetwork, MaskState
from selfscale.nn.metrics import Evaluation, Evaluator, to_float
from selfscale.progress import SILENT, Progress
from selfscale.records import SessionRecord

CHUNK_BYTES = 16 * 2**20
IDLE_STEPS = 20
# Of the loss, while gradients are float16: a pixel's share in it is small, and would become zero.
HALF_SCALE = 1024.0


@dataclass(frozen=True)
class Plan:
    """How long a session is, how often it looks at the validation images, and its highest learning rate.

    None: the one in the settings.
    """

    steps: int
    evaluations: int
    learning_rate: float | None = None

    @property
    def pauses(self) -> list[int]:
        """The steps after which it is evaluated, in equal distances; the last one is the session's end."""
        steps = np.linspace(0, self.steps, self.evaluations + 1).round().astype(int)
        return sorted(set(steps.tolist()) - {0})


@dataclass(frozen=True)
class Compilation:
    """How the training step is compiled: with XLA, and computing in float16 (weights stay float32)."""

    xla: bool = False
    half: bool = False


class OneReplicaAdam(keras.optimizers.Adam):
    """Adam whose traces can be forgotten.

    Keras sums gradients over replicas by an operation with a gradient of its own, for which TensorFlow
    keeps the whole graph of each traced step until the process ends: some megabytes a network.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        return grads_and_vars


class Trainer:
    """Trains one switched network with Adam; compiled once, whatever is switched afterwards.

    Evaluation happens on the switched graph and changes nothing in it (thesis 2.2.2).
    """

    def __init__(
        self,
        network: MaskedNetwork,
        train: Split,
        validation: Split,
        *,
        loss: str,
        settings: Training,
        evaluator: Evaluator,
        compilation: Compilation = Compilation(),
        feed: Feed | None = None,
    ) -> None:
        self.compilation = compilation
        self.feed = feed or Streamed(train, settings.crop)
        self.network, self.train, self.validation = network, train, validation
        self.loss, self.settings, self.evaluator = loss, settings, evaluator
        self.optimizer = OneReplicaAdam(settings.learning_rate, global_clipnorm=settings.clip_norm)
        self.optimizer.build(network.graph.trainable_variables)
        self._steps = tf.function(
            self._train_steps,
            input_signature=[tuple(self.feed.signature), tf.TensorSpec((None,), tf.float32)],
            jit_compile=compilation.xla,
        )

    def of(self, network: MaskedNetwork | None = None, compilation: Compilation | None = None) -> Trainer:
        """The same training of another network, or compiled in another way."""
        return Trainer(
            network or self.network,
            self.train,
            self.validation,
            loss=self.loss,
            settings=self.settings,
            evaluator=self.evaluator.of(network.graph) if network else self.evaluator,
            compilation=compilation or self.compilation,
            feed=self.feed,
        )

    def idle(self) -> float:
        """Run some steps that change nothing in the network; to measure them."""
        before = self.network.state()  # a layer may change without any gradient
        mean = self._advance(np.zeros(IDLE_STEPS, np.float32), np.random.default_rng(0))
        self.network.restore(before)
        return mean

    def reset(self) -> None:
        """Zero Adam's accumulators and step counter, so that every configuration has an equal chance."""
        for variable in self.optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))

    def evaluate_loss(self) -> float:
        """The validation score of the network as it is now."""
        return self.evaluator(self.validation, (self.loss,)).score(self.loss)

    def session(
        self,
        plan: Plan,
        rng: np.random.Generator,
        progress: Progress = SILENT,
        hopeless: Mapping[int, float] | None = None,
        sufficient: Callable[[Evaluation], bool] | None = None,
    ) -> tuple[SessionRecord, Evaluation]:
        """Train for `plan.steps` steps from the present state; a warm-up and a cosine decay span the session.

        Ends early as `non-finite` when a loss is not a number, as `dead` when the output has become
        the same everywhere, as `hopeless` when the score at a step is above `hopeless[step]`, and as
        `sufficient` when that says so. The evaluation at the end of such a session, and of a completed
        one, has all metrics.
        """
        started = time.perf_counter()
        highest = plan.learning_rate or self.settings.learning_rate
        rates = learning_rates(plan.steps, highest, self.settings.warmup)
        losses: list[tuple[int, float]] = []
        scores: list[tuple[int, float]] = []
        ended, step = "completed", 0
        progress.begin(plan.steps)
        for pause in plan.pauses:
            mean = self._advance(rates[step:pause], rng)
            step = pause
            losses.append((step, mean))
            evaluation = self.evaluator(self.validation, None if pause == plan.steps else (self.loss,))
            scores.append((step, evaluation.score(self.loss)))
            if not (np.isfinite(mean) and evaluation.finite):
                ended = "non-finite"
            elif evaluation.dead:
                ended = "dead"
            elif hopeless and scores[-1][1] > hopeless.get(step, np.inf):
                ended = "hopeless"
            elif sufficient and step < plan.steps and sufficient(evaluation):
                ended, evaluation = "sufficient", self.evaluator(self.validation)
            progress.evaluated(*scores[-1])
            if ended != "completed":
                break
        record = SessionRecord(step, tuple(losses), tuple(scores), ended, time.perf_counter() - started)
        return record, evaluation

    def _advance(self, rates: np.ndarray, rng: np.random.Generator) -> float:
        """Run one step per rate, in chunks that fit in a bounded piece of memory; the mean loss."""
        settings, total = self.settings, 0.0
        side = settings.crop or max(self.train.images.shape[1:3])
        # Reading and converting ahead of the steps stays bounded, however long the session is.
        step_bytes = settings.batch * side**2 * (1 + self.train.targets.dtype.itemsize)
        chunk = max(1, CHUNK_BYTES // step_bytes)
        for start in range(0, len(rates), chunk):
            part = rates[start : start + chunk]
            crops = self.feed.chunk((len(part), settings.batch), rng)
            try:
                total += float(self._steps(crops, part))
            except tf.errors.ResourceExhaustedError as error:
                raise UserError(
                    f"training.batch: {settings.batch} images of {side}x{side} do not fit in the memory "
                    "of the device; lower training.batch or training.crop"
                ) from error
        return total / max(1, len(rates))

    def _train_steps(self, crops: tuple[tf.Tensor, ...], rates: tf.Tensor) -> tf.Tensor:
        loss_sums = LOSSES[self.loss]
        variables = self.network.graph.trainable_variables
        masks = self.network.update_masks()
        mask_of = {id(variable): mask for variable, mask in masks}
        total = tf.constant(0.0)
        half = self.compilation.half
        scale = HALF_SCALE if half else 1.0
        for step in tf.range(tf.shape(rates)[0]):
            images, targets = self.feed.batch(crops, step)
            before = [tf.identity(variable.value) for variable, _ in masks]
            with tf.GradientTape() as tape, half_precision(self.network.model) if half else nullcontext():
                output = self.network.graph(to_float(images), training=True)
                loss = ratio(loss_sums(tf.cast(targets, tf.float32), output))
                scaled = loss * scale
            gradients = tape.gradient(scaled, [variable.value for variable in variables])
            # What is switched off or frozen must not weigh in the clipped norm either.
            gradients = [
                tf.where(mask_of[id(variable)], gradient / scale, tf.zeros_like(gradient))
                for variable, gradient in zip(variables, gradients, strict=True)
            ]
            self.optimizer.learning_rate.assign(rates[step])
            self.optimizer.apply(gradients, variables)
            # Momentum moves weights that get no gradient: put them back after every update.
            for (variable, mask), old in zip(masks, before, strict=True):
                variable.assign(tf.where(mask, variable.value, old))
            total += loss
        return total


def forget_kernels() -> None:
    """Free what TensorFlow keeps of all functions that were ever called: half a megabyte for each network.

    Those that are called again are made ready again, in a moment and with the same results.
    """
    context.context().clear_kernel_cache()


def joined(sessions: Sequence[SessionRecord]) -> SessionRecord:
    """Several cycles of training as one session."""
    starts = np.cumsum([0, *(session.steps for session in sessions)]).tolist()
    pairs = list(zip(starts, sessions, strict=False))
    return SessionRecord(
        starts[-1],
        tuple((start + step, loss) for start, session in pairs for step, loss in session.losses),
        tuple((start + step, score) for start, session in pairs for step, score in session.scores),
        sessions[-1].ended,
        sum(session.seconds for session in sessions),
    )


def first_session(
    trainer: Trainer, seed: int, attempt: int, progress: Progress = SILENT
) -> tuple[SessionRecord, Evaluation]:
    """The long first session: cycles of warm-up and cosine decay until the score stagnates (thesis 2.3.2).

    Rule: after each cycle, the validation score is compared with the best of the cycles before;
    the session has stagnated when it gained less than `min_gain` of it. It ends as `completed`
    when `max_cycles` are over before that. The network is left in its best cycle's state.
    """
    settings = trainer.settings.first
    progress = progress.of(most=settings.max_cycles * settings.steps, filters=trainer.network.filters_kept)
    plan = Plan(settings.steps, trainer.settings.evaluations)
    sessions: list[SessionRecord] = []
    best: Evaluation | None = None
    state: MaskState | None = None
    ended = "completed"
    for cycle in range(settings.max_cycles):
        rng = np.random.default_rng((seed, 0, attempt, cycle))
        told = progress.of(tried=f"cycle {cycle + 1}", done=cycle * settings.steps)
        session, evaluation = trainer.session(plan, rng, told)
        sessions.append(session)
        if best is None and session.ended != "completed":
            return session, evaluation
        # A later cycle that dies has gained nothing.
        score = evaluation.score(trainer.loss) if session.ended == "completed" else np.inf
        gain = 1.0 if best is None else 1.0 - score / best.score(trainer.loss)
        if gain > 0:
            best, state = evaluation, trainer.network.state()
        if gain < settings.min_gain:
            ended = "stagnated"
            break
    assert best is not None and state is not None
    trainer.network.restore(state)
    return replace(joined(sessions), ended=ended), best
