"""SOAP (Vyas et al. 2024, arXiv:2409.11321) as an optimizer of Keras."""

from __future__ import annotations

from math import prod
from typing import Any

import keras
from keras import ops


class OneReplica:
    """Mixin for optimizers whose traces can be forgotten.

    Keras sums gradients over replicas by an operation with a gradient of its own, for which TensorFlow
    keeps the whole graph of each traced step until the process ends: some megabytes a network.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        return grads_and_vars


class SOAP(OneReplica, keras.optimizers.Optimizer):
    """Adam in the slowly changing eigenbasis of Shampoo's preconditioners.

    To load it again, pass `custom_objects={"SOAP": SOAP}`: were it registered with Keras, MLflow would pickle
    it with every model of the process, which then could not be loaded without this package.

    Vyas et al. 2024, arXiv:2409.11321, as in the authors' implementation. A kernel of any rank is one
    matrix: its last axis (filters) are the columns, all others the rows. Variables without two axes,
    and matrices of which no side gets a preconditioner, are updated as by Adam.

    The first step of a matrix computes the basis and moves nothing: a basis must not be used for the
    gradient that it is made of. Zeros in all variables are therefore a complete reset.

    Args:
        learning_rate: A float, a `keras.optimizers.schedules.LearningRateSchedule` or a callable.
        beta_1: Decay of the mean of the gradients, in [0, 1).
        beta_2: Decay of the mean of the squared gradients in the eigenbasis, in [0, 1).
        shampoo_beta: Decay of the two preconditioners, in [0, 1).
        epsilon: Small positive number that is added to the root of the mean square.
        precondition_frequency: Steps between two updates of the basis, each a step of power iteration
            and a QR decomposition; at least 1.
        max_dimension: A side of more rows or columns gets no preconditioner of its own.
        **kwargs: What all Keras optimizers take: `weight_decay`, `global_clipnorm`, `use_ema`, `name`...
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        shampoo_beta: float = 0.99,
        epsilon: float = 1e-8,
        precondition_frequency: int = 5,
        max_dimension: int = 512,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        for name, beta in (("beta_1", beta_1), ("beta_2", beta_2), ("shampoo_beta", shampoo_beta)):
            if not 0 <= beta < 1:
                raise ValueError(f"{name} must be at least 0 and less than 1, not {beta}")
        if epsilon <= 0:
            raise ValueError(f"epsilon must be greater than 0, not {epsilon}")
        if precondition_frequency < 1:
            raise ValueError(f"precondition_frequency must be at least 1, not {precondition_frequency}")
        if max_dimension < 0:
            raise ValueError(f"max_dimension must be at least 0, not {max_dimension}")
        self.beta_1, self.beta_2, self.shampoo_beta = beta_1, beta_2, shampoo_beta
        self.epsilon, self.max_dimension = epsilon, max_dimension
        self.precondition_frequency = precondition_frequency

    def build(self, variables: list[keras.Variable]) -> None:
        """Create the moments of each variable, and per side its preconditioner and basis, or None."""
        if self.built:
            return
        super().build(variables)
        self._momentums: list[keras.Variable] = []
        self._velocities: list[keras.Variable] = []
        self._preconditioners: list[list[keras.Variable | None]] = []
        self._bases: list[list[keras.Variable | None]] = []
        for variable in variables:
            shape, sides = _as_matrix(variable.shape), self._sides(variable.shape)
            self._momentums.append(self._zeros(shape, variable, "momentum"))
            self._velocities.append(self._zeros(shape, variable, "velocity"))
            for name, kept in (("preconditioner", self._preconditioners), ("basis", self._bases)):
                kept.append(
                    [
                        self._zeros((size, size), variable, f"{name}_{axis}") if size else None
                        for axis, size in enumerate(sides)
                    ]
                )

    def _sides(self, shape: tuple[int, ...]) -> list[int]:
        """The rows and columns of the matrix; 0 for a side that gets no preconditioner."""
        if len(shape) < 2:
            return [0, 0]
        # The only basis of one dimension changes nothing.
        return [side if 1 < side <= self.max_dimension else 0 for side in _as_matrix(shape)]

    def _zeros(self, shape: tuple[int, ...], variable: keras.Variable, name: str) -> keras.Variable:
        prefix = getattr(variable, "path", variable.name).replace("/", "_")
        return self.add_variable(shape, dtype="float32", name=f"{prefix}_{name}")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable, its moments, its preconditioners and, every few steps, its basis."""
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        preconditioners, bases = self._preconditioners[index], self._bases[index]
        gradient = ops.reshape(ops.cast(ops.convert_to_tensor(gradient), "float32"), momentum.shape)
        steps = ops.cast(self.iterations, "float32")
        moved = 1.0
        if bases[0] is None and bases[1] is None:
            steps = steps + 1.0
        else:
            moved = ops.minimum(steps, 1.0)  # 0 in the first step, which makes the basis
            steps = ops.maximum(steps, 1.0)
        rotated = _rotate(gradient, bases)
        self.assign_add(momentum, (gradient - momentum) * ((1.0 - self.beta_1) * moved))
        self.assign_add(velocity, (ops.square(rotated) - velocity) * ((1.0 - self.beta_2) * moved))
        rate = ops.cast(learning_rate, "float32") * (
            ops.sqrt(1.0 - ops.power(self.beta_2, steps)) / (1.0 - ops.power(self.beta_1, steps))
        )
        step = _rotate(momentum, bases) / (ops.sqrt(velocity) + self.epsilon)
        step = rate * _rotate(step, bases, back=True)
        self.assign_sub(variable, ops.cast(ops.reshape(step, variable.shape), variable.dtype))
        for axis, (preconditioner, basis) in enumerate(zip(preconditioners, bases, strict=True)):
            if preconditioner is not None:
                # Only now, so that the gradient is not projected on a basis made of itself.
                pair = (gradient, ops.transpose(gradient))
                outer = ops.matmul(*(pair if axis == 0 else pair[::-1]))
                self.assign_add(preconditioner, (outer - preconditioner) * (1.0 - self.shampoo_beta))
                self._update_basis(preconditioner, basis, velocity, axis)

    def _update_basis(self, preconditioner: Any, basis: Any, velocity: Any, axis: int) -> None:
        """Compute the basis at first; later improve it by a step of power iteration."""

        def first() -> tuple[Any, Any]:
            # What is not finite has no eigenvectors: the weights become NaN, as with other optimizers.
            finite = ops.where(ops.isfinite(preconditioner), preconditioner, 0.0)
            return ops.flip(ops.eigh(finite)[1], axis=1), ops.convert_to_tensor(velocity)

        def later() -> tuple[Any, Any]:
            power = ops.matmul(preconditioner, basis)
            # By the estimated eigenvalues, the largest first: else directions would have to swap places.
            order = ops.argsort(-ops.sum(basis * power, axis=0))
            improved, _ = ops.qr(ops.take(power, order, axis=1))
            return improved, ops.take(velocity, order, axis=axis)

        def same() -> tuple[Any, Any]:
            return ops.convert_to_tensor(basis), ops.convert_to_tensor(velocity)

        is_due = ops.equal(ops.mod(self.iterations, self.precondition_frequency), 0)
        is_first = ops.equal(self.iterations, 0)
        new = ops.cond(is_due, lambda: ops.cond(is_first, first, later), same)
        self.assign(basis, new[0])
        self.assign(velocity, new[1])

    def get_config(self) -> dict[str, Any]:
        """Return all arguments, those of the base class included."""
        own = ("beta_1", "beta_2", "shampoo_beta", "epsilon", "precondition_frequency", "max_dimension")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _as_matrix(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (prod(shape[:-1]), shape[-1]) if len(shape) > 1 else tuple(shape)


def _rotate(matrix: Any, bases: list[Any], back: bool = False) -> Any:
    """Turn a matrix into the eigenbases of its rows and columns, or back."""
    rows, columns = bases
    if rows is not None:
        matrix = ops.matmul(rows if back else ops.transpose(rows), matrix)
    if columns is not None:
        matrix = ops.matmul(matrix, ops.transpose(columns) if back else columns)
    return matrix
