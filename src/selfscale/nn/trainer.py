"""Training sessions: many steps per call of one compiled function, evaluations in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from selfscale.config import Training
from selfscale.decisions import SessionRecord
from selfscale.errors import UserError
from selfscale.nn.blocking import Chain
from selfscale.nn.devices import half_precision
from selfscale.nn.feeding import Feed, Streamed
from selfscale.nn.input_pipeline import Split, crop_size
from selfscale.nn.losses import LOSSES, ratio
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.metrics import Evaluation, Evaluator, to_float
from selfscale.nn.optimizers import create, learning_rates
from selfscale.progress import SILENT, Progress

CHUNK_BYTES = 16 * 2**20
# Of the loss, while gradients are float16: a pixel's share in it is small, and would become zero.
HALF_SCALE = 1024.0


@dataclass(frozen=True)
class Plan:
    """Length of a session, number of its evaluations, and its peak learning rate."""

    steps: int
    evaluations: int
    learning_rate: float | None = None  # that of the settings

    @property
    def pauses(self) -> list[int]:
        """Steps after which the session is evaluated, evenly spaced; the last one ends it."""
        steps = np.linspace(0, self.steps, self.evaluations + 1).round().astype(int)
        return sorted(set(steps.tolist()) - {0})


@dataclass(frozen=True)
class Compilation:
    """How the training step is compiled: with XLA, and computing in float16 (weights stay float32)."""

    xla: bool = False
    half: bool = False


class Trainer:
    """Train and evaluate one masked network; compiled once, whatever is masked afterwards.

    Evaluation changes nothing in the network (thesis 2.2.2).

    Args:
        network: Network to train.
        train: Images and targets of training.
        validation: Images and targets of evaluation.
        loss: Name of a loss in `LOSSES`.
        settings: Batch size, learning rate and the like.
        evaluator: Evaluation of the network's model.
        compilation: How the training step is compiled.
        feed: Source of the crops. Defaults to `Streamed`.
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
        self.optimizer = create(settings.optimizer, settings.arguments, clip_norm=settings.clip_norm)
        self.optimizer.build(network.model.trainable_variables)
        self._fresh = [variable.numpy().copy() for variable in self.optimizer.variables]
        self._steps = tf.function(
            self._train_steps,
            input_signature=[tuple(self.feed.signature), tf.TensorSpec((None,), tf.float32)],
            jit_compile=compilation.xla,
            autograph=False,  # whose conversion takes longer than the tracing
        )

    def of(self, network: MaskedNetwork | None = None, compilation: Compilation | None = None) -> Trainer:
        """Return a trainer of another network, or of this one compiled in another way."""
        return Trainer(
            network or self.network,
            self.train,
            self.validation,
            loss=self.loss,
            settings=self.settings,
            evaluator=self.evaluator.of(network.model) if network else self.evaluator,
            compilation=compilation or self.compilation,
            feed=self.feed,
        )

    def reset(self) -> None:
        """Set the optimizer back to how it was made, as after every alteration (thesis 2.3)."""
        for variable, value in zip(self.optimizer.variables, self._fresh, strict=True):
            variable.assign(value)

    def evaluate_loss(self) -> float:
        """Return the validation loss of the network as it is now."""
        return self.evaluator(self.validation, (self.loss,)).score(self.loss)

    def session(
        self,
        plan: Plan,
        rng: np.random.Generator,
        progress: Progress = SILENT,
        hopeless: Mapping[int, float] | None = None,
        sufficient: Callable[[Evaluation], bool] | None = None,
    ) -> tuple[SessionRecord, Evaluation]:
        """Train from the present state; one warm-up and cosine decay span the session.

        A session ends early as `non-finite` if a loss is not a number, and as `dead` if the output has
        become the same everywhere.

        Args:
            plan: Length, evaluations and peak learning rate.
            rng: Source of the crops.
            progress: Listener.
            hopeless: Validation loss by step, above which the session ends as `hopeless`.
            sufficient: Called with each evaluation; the session ends as `sufficient` once it is true.

        Returns:
            The session, and its last evaluation: with all metrics if `completed` or `sufficient`.
        """
        started = time.perf_counter()
        self.network.masks.hold()  # weights may have been set since the masks were
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
        """Run one step per learning rate, in chunks of bounded memory; return the mean loss."""
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
        """Return the sum of the losses of one step per learning rate; compiled."""
        loss_sums = LOSSES[self.loss]
        variables = self.network.model.trainable_variables
        half = self.compilation.half
        scale = HALF_SCALE if half else 1.0
        with half_precision(self.network.model) if half else nullcontext():
            chain = Chain(self.network.model, crop_size(self.train.images.shape, self.settings.crop))
        batch = self.feed.batches(crops, chain)

        def train(step: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images, targets = batch(step)
            with tf.GradientTape() as tape, half_precision(self.network.model) if half else nullcontext():
                output = chain(to_float(images), training=True)
                loss = ratio(loss_sums(tf.cast(targets, tf.float32), output))
                scaled = loss * scale
            gradients = tape.gradient(scaled, [variable.value for variable in variables])
            self.optimizer.learning_rate.assign(rates[step])
            self.network.masks.apply(self.optimizer, [gradient / scale for gradient in gradients])
            return step + 1, total + loss

        steps = tf.shape(rates)[0]
        return tf.while_loop(lambda step, _: step < steps, train, (tf.constant(0), tf.constant(0.0)))[1]


def joined(sessions: Sequence[SessionRecord]) -> SessionRecord:
    """Join consecutive cycles into one session."""
    starts = np.cumsum([0, *(session.steps for session in sessions)]).tolist()
    pairs = list(zip(starts, sessions, strict=False))
    return SessionRecord(
        starts[-1],
        tuple((start + step, loss) for start, session in pairs for step, loss in session.losses),
        tuple((start + step, score) for start, session in pairs for step, score in session.scores),
        sessions[-1].ended,
        sum(session.seconds for session in sessions),
    )
