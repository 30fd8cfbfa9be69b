"""Batched search for large deviations: every row of a batch has its own box, start and objective.

One step of a row:  x' = clip( best + step * width * sign(momentum) ),  step halved when x' is no better.
A first step of 1 jumps to the corner that the gradient points at. Rows never influence each other.

Reference: Madry et al., ICLR 2018 (signed gradient); Croce, Hein, ICML 2020 (halving, momentum).
Not claimed: that a maximum is found. All values are float tensors; a caller replays what it reports.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from verify.network.graph import Network
from verify.network.module import NetworkModule

MOMENTUM = 0.75
SMALLEST_STEP = 2.0**-14  # of the width of the box
LEAK = 0.1
CHUNK = 1 << 22  # elements of the inputs of one forward pass


@dataclass(frozen=True)
class Pair:
    """Two networks as torch modules over flattened inputs."""

    original: NetworkModule
    compact: NetworkModule
    dtype: torch.dtype

    @classmethod
    def of(cls, original: Network, compact: Network, dtype: torch.dtype = torch.float64) -> "Pair":
        """Modules without trainable parameters, in `dtype`."""
        modules = [NetworkModule(n, dtype).requires_grad_(False) for n in (original, compact)]
        return cls(modules[0], modules[1], dtype)

    @classmethod
    def softened(cls, original: Network, compact: Network, dtype: torch.dtype) -> "Pair":
        """The pair with leaky ReLUs: its gradient also sees units that are off, where the true one is zero."""
        return cls.of(_leaky(original), _leaky(compact), dtype)

    def difference(self, points: Tensor) -> Tensor:
        """``original(x) - compact(x)``, ``(rows, outputs)``, for flat points ``(rows, inputs)``."""
        f: Tensor = self.original(points.reshape(len(points), *self.original.network.input_shape))
        g: Tensor = self.compact(points.reshape(len(points), *self.compact.network.input_shape))
        return f.reshape(len(points), -1) - g.reshape(len(points), -1)

    @torch.no_grad()
    def differences(self, points: Tensor) -> Tensor:
        """As `difference`, without gradient and in parts of bounded size."""
        rows = max(1, CHUNK // (64 * max(1, points.shape[1])))
        return torch.cat([self.difference(points[i : i + rows]) for i in range(0, len(points), rows)])


def _leaky(network: Network) -> Network:
    nodes = (replace(n, op="leaky_relu", attributes={"slope": LEAK}) if n.op == "relu" else n for n in network.nodes)
    return replace(network, nodes=tuple(nodes))


@dataclass(frozen=True)
class Objective:
    """What each row maximises: ``sign * (f - g)[output]``; both tensors are ``(rows,)``."""

    output: Tensor
    sign: Tensor

    def of(self, differences: Tensor) -> Tensor:
        """Values ``(rows,)`` of ``(rows, outputs)``."""
        return self.sign * differences.gather(1, self.output[:, None])[:, 0]

    def rows(self, index: Tensor) -> "Objective":
        """The objective of some rows."""
        return Objective(self.output[index], self.sign[index])


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock; None never comes."""

    moment: float | None

    @classmethod
    def after(cls, seconds: float | None) -> "Deadline":
        return cls(None if seconds is None else time.monotonic() + seconds)

    @property
    def passed(self) -> bool:
        return self.moment is not None and time.monotonic() >= self.moment


def ascend(
    pair: Pair, start: Tensor, low: Tensor, high: Tensor, objective: Objective, *, steps: int, deadline: Deadline
) -> tuple[Tensor, Tensor]:
    """Climb from `start`; all of `start`, `low`, `high` are ``(rows, inputs)``.

    A row whose step has shrunk below `SMALLEST_STEP` is done and costs nothing more.

    Returns:
        The best point of every row and its value, ``(rows, inputs)`` and ``(rows,)``.
    """
    points, (values, momentum) = start.clone(), _value_and_gradient(pair, start, objective)
    step, gradient, width = torch.ones_like(values), momentum.clone(), high - low
    active = torch.arange(len(start))
    for _ in range(steps):
        active = active[step[active] >= SMALLEST_STEP]
        if deadline.passed or not len(active):
            break
        move = step[active, None] * width[active] * momentum[active].sign()
        trial = torch.clamp(points[active] + move, low[active], high[active])
        value, slope = _value_and_gradient(pair, trial, objective.rows(active))
        better = value > values[active]
        won, lost = active[better], active[~better]
        points[won], values[won], gradient[won] = trial[better], value[better], slope[better]
        momentum[won] = slope[better] + MOMENTUM * momentum[won]
        step[lost] *= 0.5
        momentum[lost] = gradient[lost]
    return points, values


def _value_and_gradient(pair: Pair, points: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """Value and unit-size (1-norm) gradient of every row."""
    x = points.detach().requires_grad_(True)
    value = objective.of(pair.difference(x))
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient / gradient.abs().sum(dim=1, keepdim=True).clamp_min(1e-300)


def polish(
    pair: Pair, start: Tensor, low: Tensor, high: Tensor, objective: Objective, *, rounds: int, deadline: Deadline
) -> tuple[Tensor, Tensor]:
    """Coordinate search from every row of `start` ``(rows, inputs)`` in one box, `low`, `high` ``(inputs,)``.

    A round tries, for every coordinate alone, both bounds and a step up and down, and takes the best of these
    moves; a row for which none helps halves its step.

    Returns:
        The best point of every row and its value.
    """
    points, values = start.clone(), objective.of(pair.differences(start))
    step = torch.full_like(values, 0.25)
    for _ in range(rounds):
        active = torch.nonzero(step >= SMALLEST_STEP)[:, 0]
        if deadline.passed or not len(active):
            break
        trials = _single_moves(points[active], low, high, step[active])  # (active, moves, inputs)
        flat = pair.differences(trials.flatten(0, 1)).reshape(*trials.shape[:2], -1)
        signed = flat * objective.sign[active, None, None]
        chosen = signed.gather(2, objective.output[active, None, None].expand(-1, trials.shape[1], 1))[:, :, 0]
        value, move = chosen.max(dim=1)
        better = value > values[active]
        points[active[better]] = trials[better, move[better]]
        values[active[better]] = value[better]
        step[active[~better]] *= 0.5
    return points, values


def _single_moves(points: Tensor, low: Tensor, high: Tensor, step: Tensor) -> Tensor:
    """``(rows, 4 inputs, inputs)``: each coordinate at its lower bound, its upper bound, a step down, a step up."""
    rows, dimension = points.shape
    reach = step[:, None] * (high - low)
    targets = torch.stack([low.expand_as(points), high.expand_as(points), points - reach, points + reach], dim=1)
    targets = torch.clamp(targets, low, high)  # (rows, 4, inputs)
    moves = points[:, None, None].repeat(1, 4, dimension, 1)  # (rows, 4, inputs, inputs)
    moves.diagonal(dim1=2, dim2=3).copy_(targets)
    return moves.reshape(rows, 4 * dimension, dimension)


def random_points(generator: np.random.Generator, low: Tensor, high: Tensor, count: int) -> Tensor:
    """`count` points per row of the boxes ``(rows, inputs)``: half uniform, half corners; ``(count, rows, inputs)``."""
    rows, dimension = low.shape
    uniform = generator.random((count - count // 2, rows, dimension))
    corners = generator.integers(0, 2, (count // 2, rows, dimension)).astype(np.float64)
    share = torch.from_numpy(np.concatenate([uniform, corners])).to(low)
    return torch.clamp(low + share * (high - low), low, high)


def disturbed(generator: np.random.Generator, points: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Points ``(rows, inputs)`` moved at random inside one box: half by normal noise, half by fresh coordinates.

    The size of the noise (1 to 100 % of the width) and the share of fresh coordinates (up to 60 %) vary by row.
    """
    shape = tuple(points.shape)
    scale = 10.0 ** -(2.0 * generator.random((shape[0], 1)))
    noise = torch.from_numpy(scale * generator.standard_normal(shape)).to(points)
    fresh = low + torch.from_numpy(generator.random(shape)).to(points) * (high - low)
    renewed = torch.from_numpy(generator.random(shape) < 0.6 * generator.random((shape[0], 1)))
    noisy = torch.arange(shape[0])[:, None] % 2 == 0
    return torch.clamp(
        torch.where(noisy, points + noise * (high - low), torch.where(renewed, fresh, points)), low, high
    )
