"""What two networks do on given inputs: deviation per sample and output, agreement of the arg max.

    deviation(x) = max_i |f_i(x) - g_i(x)|,   in float64

Not claimed: anything about other inputs, or about runs in another arithmetic.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from verify.errors import DataError, MismatchError
from verify.network.evaluate import evaluate
from verify.network.graph import Array, Network

Engine = Literal["numpy", "torch"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Outputs of two networks on the same inputs.

    Attributes:
        original: ``(n, m)`` float64, outputs flattened.
        compact: ``(n, m)``.
    """

    original: Floats
    compact: Floats

    @cached_property
    def deviations(self) -> Floats:
        """``(n,)``: largest deviation over the outputs, per sample."""
        largest: Floats = np.abs(self.original - self.compact).max(axis=1, initial=0.0)
        return largest

    @property
    def per_output(self) -> Floats:
        """``(m,)``: largest deviation over the samples, per output."""
        largest: Floats = np.abs(self.original - self.compact).max(axis=0, initial=0.0)
        return largest

    @property
    def deviation(self) -> float:
        """Largest deviation of all, 0.0 without samples."""
        return float(self.deviations.max(initial=0.0))

    @property
    def worst(self) -> int:
        """Row of the sample with the largest deviation."""
        return int(self.deviations.argmax())

    def agrees(self, margin: float | Floats | None = None) -> NDArray[np.bool_]:
        """``(n,)``: whether both networks have the same arg max; a tie goes to the lowest index.

        With a margin (one number, or ``(n,)``) it counts as the same only if it is ahead of the runner-up by more
        than the margin in both networks.
        """
        same: NDArray[np.bool_] = self.original.argmax(axis=1) == self.compact.argmax(axis=1)
        return same if margin is None else same & (_lead(self.original) > margin) & (_lead(self.compact) > margin)

    @property
    def agreement(self) -> float:
        """Share of samples with the same arg max."""
        return float(self.agrees().mean()) if len(self.original) else 1.0


def compare(
    original: Network, compact: Network, inputs: Array, *, batch_size: int = 256, engine: Engine = "numpy"
) -> Comparison:
    """Run both networks in float64.

    Args:
        inputs: ``(n, *input_shape)``; each row is reshaped to each network's input shape.
        engine: "numpy" is the reference semantics; "torch" computes the same in torch float64, faster for
            convolutions.

    Raises:
        MismatchError: the networks do not have inputs and outputs of equal size.
        DataError: no inputs, another shape, NaN or infinity.
    """
    check_comparable(original, compact)
    x = rows_for(original, inputs)
    runs = [_ENGINES[engine](n, x.reshape(len(x), *n.input_shape), batch_size) for n in (original, compact)]
    f, g = (run.reshape(len(x), -1) for run in runs)
    if not (np.isfinite(f).all() and np.isfinite(g).all()):
        raise DataError("a network's output is NaN or infinite on these inputs (overflow in float64)")
    return Comparison(f, g)


def check_comparable(original: Network, compact: Network) -> None:
    """Raise MismatchError unless both networks take and give the same number of values."""
    for what, a, b in (
        ("input", original.input_shape, compact.input_shape),
        ("output", original.output_shape, compact.output_shape),
    ):
        if np.prod(a, dtype=int) != np.prod(b, dtype=int):
            raise MismatchError(f"the networks' {what}s differ: original {a}, compact {b}")


def rows_for(network: Network, inputs: Array) -> Floats:
    """`inputs` as ``(n, *input_shape)`` float64, n >= 1, finite; flat rows are reshaped.

    Raises:
        DataError: as `compare`.
    """
    raw = np.asarray(inputs)
    if raw.dtype.kind not in "fiub":
        raise DataError(f"inputs have dtype {raw.dtype}, expected real numbers")
    x = raw.astype(np.float64)
    if x.ndim == 0 or not len(x):
        raise DataError("inputs are empty")
    if np.prod(x.shape[1:], dtype=int) != np.prod(network.input_shape, dtype=int):
        raise DataError(f"inputs have shape {x.shape}, expected (n, {', '.join(map(str, network.input_shape))})")
    if not np.isfinite(x).all():
        row = int(np.argwhere(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))[0, 0])
        raise DataError(f"inputs hold NaN or infinity (first in row {row})")
    return x.reshape(len(x), *network.input_shape)


def _lead(outputs: Floats) -> Floats:
    """How far the largest output is ahead of the second one; infinity for a single output."""
    if outputs.shape[1] < 2:
        return np.full(len(outputs), np.inf)
    top = np.partition(outputs, -2, axis=1)
    lead: Floats = top[:, -1] - top[:, -2]
    return lead


def _numpy(network: Network, x: Floats, batch_size: int) -> Floats:
    return evaluate(network, x, batch_size=batch_size)


def _torch(network: Network, x: Floats, batch_size: int) -> Floats:
    import torch

    from verify.network.module import NetworkModule

    module = NetworkModule(network, torch.float64).requires_grad_(False)
    parts = [module(torch.from_numpy(x[i : i + batch_size])).numpy() for i in range(0, len(x), batch_size)]
    return np.concatenate(parts)


_ENGINES: dict[str, Callable[[Network, Floats, int], Floats]] = {"numpy": _numpy, "torch": _torch}
