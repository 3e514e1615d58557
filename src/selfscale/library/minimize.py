"""`selfscale.minimize`: the smallest network that still does the task, from a model that someone brings."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from selfscale.errors import UserError
from selfscale.library.checkpoint import Checkpoint, settings_of
from selfscale.library.cost import CostMeter
from selfscale.library.examples import Batch, Source, check_inputs, in_memory
from selfscale.library.labels import check_targets
from selfscale.library.loop import Loop
from selfscale.library.metric import Direction
from selfscale.library.mlflow_runs import log_result
from selfscale.library.network import Network, Task
from selfscale.library.options import Options, task_of
from selfscale.library.plan import State
from selfscale.library.result import ChannelDecision, FrontierPoint, MinimizationResult, pareto
from selfscale.library.sums import output_names
from selfscale.nn.graph import trace
from selfscale.nn.rewriting import rewrite
from selfscale.progress import Listener, Moment, Progress, in_words, nobody
from selfscale.search.channel_importance import ChannelStrategy


def minimize(
    model: keras.Model,
    train: Any,
    validation: Any,
    *,
    tolerance: float = 0.01,
    loss: Any = None,
    optimizer: Any = None,
    metric: Any = None,
    direction: Direction | None = None,
    cost: str | Callable[[keras.Model], float] = "macs",
    strategy: str | ChannelStrategy = "taylor",
    protect: Sequence[str] = (),
    round_to: int = 1,
    budget: Mapping[str, float] | None = None,
    confidence: float = 0.95,
    batch_size: int = 32,
    seed: int = 0,
    directory: str | Path | None = None,
    callbacks: Sequence[Callable[[ChannelDecision], Any]] = (),
    progress: Listener | Progress | bool = False,
    mlflow: bool = False,
    trust_lambda: bool = False,
) -> MinimizationResult:
    """Find the smallest network that is no worse than `model` by more than `tolerance`, with evidence.

    The model itself is not changed. The arguments are described in `docs/any-model.md`.

    ```python
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train)
    result = selfscale.minimize(model, (x_train, y_train), (x_valid, y_valid), tolerance=0.01)
    result.model.save("small.keras")
    print(result.report())
    ```

    Raises:
        ValueError: Model, data or arguments can't be used; the message is one line.
    """
    arguments = locals()
    try:
        return run(Options(**arguments))
    except UserError as error:
        raise ValueError(str(error)) from error


def run(options: Options) -> MinimizationResult:
    """Check everything, minimize, and return the result."""
    model = options.model
    graph = trace(model, trust_lambda=options.trust_lambda)
    train = Source(options.train, "train", options.batch_size)
    validation = in_memory(Source(options.validation, "validation", options.batch_size))
    check_inputs(model, validation[0], "validation")
    check_inputs(model, next(train.endlessly(options.seed)), "train")
    task, plan = task_of(options, validation, options.trust_lambda), options.plan(train)
    meter = CostMeter(options.cost, keras.tree.map_structure(lambda values: values[:1], validation[0].x))
    network = Network(rewrite(model, graph, {}), task)
    check_removable(network, plan.protect)
    check_computable(network, next(train.endlessly(options.seed)))
    reference = reference_of(network)
    size = meter.size(graph, {}, model)
    first = FrontierPoint(0, size, task.metric.score(reference), True, network.widths, model)
    state = State(network, [], [first])
    checkpoint = None
    if options.directory is not None:
        settings = settings_of(model, plan, meter.name, task.metric.name, len(reference))
        checkpoint = Checkpoint(Path(options.directory), settings, model)
        state = checkpoint.load(state, task)
    for decision in Loop(state, plan, task, train, meter, reference, progress_of(options.progress)).run():
        if checkpoint:
            checkpoint.save(state)
        for callback in options.callbacks:
            callback(decision)
    result = result_of(options, state, task, meter)
    if options.mlflow:
        log_result(result, plan)
    return result


def check_removable(network: Network, protect: Sequence[str]) -> None:
    """Raise ValueError if no channel may go."""
    network.graph.removable()
    if not network.removable(protect):
        raise ValueError(f"protect: nothing else may be removed from {network.model.name} than what it names")


def check_computable(network: Network, batch: Batch) -> None:
    """Raise ValueError, of one line, if the loss of a batch or the metric can't be computed."""
    task, first = network.task, network.task.validation[0]
    check_targets(network.model, task.loss, [batch], "train")

    def loss() -> None:
        outputs = network.model(batch.x, training=False)
        network.model.compute_loss(x=batch.x, y=batch.y, y_pred=outputs, sample_weight=batch.weights)

    def metric() -> None:
        task.metric.function(first.y, network.model(first.x, training=False), first.weights)

    for name, compute in (("loss:", loss), (f"metric: {task.metric.name}", metric)):
        try:
            compute()
        except Exception as error:  # whatever a function of the user's raises
            line = " ".join(re.sub(r"\{\{.*?\}\}", "", str(error)).split())
            if line.startswith("metric: "):
                raise
            raise ValueError(f"{name} can't be computed from outputs and targets: {line[:300]}") from error


def reference_of(network: Network) -> np.ndarray:
    """Return the initial network's sums per validation example.

    Raises:
        ValueError: There is no score to compare with.
    """
    metric, sums = network.task.metric, network.evaluate()
    if len(sums) < 2:
        raise ValueError("validation: a single example shows nothing with confidence; give more of them")
    if not network.finite():
        raise ValueError("model: holds weights that are not finite numbers")
    if not np.isfinite(sums).all():
        raise ValueError(f"validation: the model's {metric.name} is not finite; check the model and its data")
    numerator, denominator = sums.sum(axis=0)
    if not (numerator > 0 and denominator > 0):
        raise ValueError(
            f"validation: the model's {metric.name} is {metric.score(sums):g}, and a tolerance relative to "
            "it means nothing; give another metric"
        )
    return sums


def progress_of(progress: Listener | Progress | bool) -> Progress:
    if isinstance(progress, Progress):
        return progress
    if callable(progress):
        return Progress(progress)
    return Progress(to_stderr if progress else nobody)


def to_stderr(moment: Moment) -> None:
    print(in_words(moment._replace(job="minimize")), file=sys.stderr, flush=True)


def result_of(options: Options, state: State, task: Task, meter: CostMeter) -> MinimizationResult:
    """Return the result; its model is a copy of that of the last point within the tolerance."""
    final = [point for point in state.points if point.within][-1]
    graph = trace(final.model, trust_lambda=options.trust_lambda)
    model = rewrite(final.model, graph, {})
    compile_as(model, options, task)
    better = "higher" if task.metric.higher else "lower"
    judged = task.metric.outputs
    return MinimizationResult(
        model=model,
        frontier=pareto(state.points, task.metric.higher),
        decisions=tuple(state.decisions),
        metric=f"{task.metric.name} ({better} is better)",
        cost=meter.name,
        tolerance=options.tolerance,
        initial=state.points[0],
        final=final,
        unjudged=tuple(name for name in output_names(model) if judged and name not in judged),
    )


def compile_as(model: keras.Model, options: Options, task: Task) -> None:
    """Compile a model as the given one was; with what was given instead, where that was."""
    config = options.model.get_compile_config() if options.model.compiled else None
    if config and options.loss is None and options.optimizer is None:
        try:
            model.compile_from_config(config)
            return
        except (TypeError, ValueError):
            pass  # functions of one's own, which Keras can't name
    optimizer = type(task.optimizer).from_config(task.optimizer.get_config())
    model.compile(optimizer, loss=task.loss, loss_weights=task.loss_weights)
