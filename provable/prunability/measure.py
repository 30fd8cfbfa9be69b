"""The smallest share of weights that can be kept without harm to the training loss.

    prunability = min { alpha : L(M_a(w)) <= (1 + tolerance) L(w) for all a >= alpha of the grid }

M_a keeps the share a of the weights of linear and conv layers: the largest ones of the whole network ("magnitude"), or
random ones ("random"; losses are averaged over several orders). Masks are nested. Losses are not monotone in a, hence
"for all larger a": the curve is repaired to its running maximum from a = 1 down. Near L(w) = 0 a relative tolerance
allows nothing; the share for an absolute rise of the loss is given, too.

Reference: Kuhn, Lyle, Gomez, Rothfuss, Gal, "Robustness to Pruning Predicts Generalization in Deep Neural Networks",
2021, arXiv 2103.06002. Grid, repair and absolute tolerance are this project's. Theory note: prunability.md. Not
claimed: that a small value causes, or guarantees, a small test loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from provable.compensation.moments import Matrix
from provable.errors import InputError
from provable.method import Method
from verify.network.graph import Array, Network

Loss = Callable[[Network], float]
"""Training loss of a network."""
KINDS = ("magnitude", "random")
GRID = (0.995, 0.99, 0.98, 0.96, 0.93, 0.89, 0.84, *(float(a) for a in np.geomspace(1.0, 1e-3, 25)))
"""Shares that are tried, besides the share of weights that are not zero: geometric, finer near 1."""
REPEATS = 3
ABSOLUTE = 0.05


@dataclass(frozen=True)
class Curve:
    """Losses of one network.

    Attributes:
        shares: descending from 1.
        losses: at these shares.
        repaired: running maximum of the losses, from share 1 down: never falls.
    """

    shares: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def repaired(self) -> tuple[float, ...]:
        return tuple(np.maximum.accumulate(self.losses).tolist())

    def smallest(self, limit: float) -> float:
        """Smallest share such that it and all larger ones have at most that loss; 1 if there is none."""
        within = [share for share, loss in zip(self.shares, self.repaired, strict=True) if loss <= limit]
        return min(within, default=1.0)


@dataclass(frozen=True)
class Prunability:
    """The measure.

    Attributes:
        relative: smallest share for a loss of at most (1 + tolerance) times the network's.
        absolute: smallest share for a loss of at most `ABSOLUTE` above the network's.
        loss: of the whole network.
        curve: what was measured.
    """

    relative: float
    absolute: float
    loss: float
    curve: Curve


def prunability(
    network: Network,
    loss: Loss,
    *,
    kind: str = "magnitude",
    tolerance: float = 0.1,
    absolute: float = ABSOLUTE,
    grid: Sequence[float] = GRID,
    generator: Generator | None = None,
) -> Prunability:
    """Prunability by a scan of the grid.

    Args:
        network: the network.
        loss: its training loss, as a function of the network.
        kind: "magnitude" or "random".
        tolerance, absolute: rises of the loss that are allowed, >= 0.
        grid: shares in (0, 1] to try; 1 is always tried.
        generator: for "random".

    Raises:
        InputError: an unknown kind, a negative tolerance, a share outside (0, 1], no weights, or a loss that is NaN.
    """
    if not (tolerance >= 0.0 and absolute >= 0.0):
        raise InputError(f"tolerances must not be negative; got {tolerance} and {absolute}")
    curve = loss_curve(network, loss, kind=kind, grid=grid, generator=generator)
    whole = curve.losses[0]
    return Prunability(curve.smallest((1.0 + tolerance) * whole), curve.smallest(whole + absolute), whole, curve)


def loss_curve(
    network: Network, loss: Loss, *, kind: str, grid: Sequence[float] = GRID, generator: Generator | None = None
) -> Curve:
    """Losses of the network with every share of its weights; arguments and errors as `prunability`."""
    orders = _orders(network, kind, generator)
    shares = sorted({1.0, _nonzero_share(network), *map(float, grid)}, reverse=True)
    if shares[0] > 1.0 or shares[-1] <= 0.0:
        raise InputError(f"shares of weights lie in (0, 1]; got {shares[0]:g} and {shares[-1]:g}")
    losses = [float(np.mean([loss(pruned(network, share, order)) for order in orders])) for share in shares]
    if not all(np.isfinite(losses)):
        raise InputError("the loss is not finite at some share: prunability is not defined")
    return Curve(tuple(shares), tuple(losses))


def bisected(
    network: Network, loss: Loss, limit: float, *, kind: str, steps: int = 12, generator: Generator | None = None
) -> float:
    """A share whose loss is at most `limit`, by bisection of (0, 1]: the smallest one where the loss is monotone."""
    orders = _orders(network, kind, generator)
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2.0
        found = float(np.mean([loss(pruned(network, middle, order)) for order in orders]))
        low, high = (low, middle) if found <= limit else (middle, high)
    return high


def pruned(network: Network, share: float, order: Matrix) -> Network:
    """The network with the share of its weights that comes first in the order; the others are 0."""
    keys = weight_keys(network)
    count = int(np.ceil(share * len(order) - 1e-9))
    keep = np.zeros(len(order), dtype=bool)
    keep[order[:count].astype(np.int64)] = True
    changed: dict[str, Array] = {}
    start = 0
    for key in keys:
        old = network.parameters[key]
        changed[key] = np.where(keep[start : start + old.size].reshape(old.shape), old, old.dtype.type(0))
        start += old.size
    return network.with_parameters(changed)


def weight_keys(network: Network) -> tuple[str, ...]:
    """Weights of linear and conv layers, in network order, shared ones once."""
    return tuple(dict.fromkeys(n.parameters["weight"] for n in network if n.op in ("linear", "conv")))


def _orders(network: Network, kind: str, generator: Generator | None) -> list[Matrix]:
    """Weights from the first to be kept to the last, as positions in the concatenation of all."""
    if kind not in KINDS:
        raise InputError(f"prunability is by {' or '.join(KINDS)}; got {kind!r}")
    keys = weight_keys(network)
    if not keys:
        raise InputError("the network has no linear or conv layer: there is nothing to prune")
    if kind == "magnitude":
        sizes = np.concatenate([np.abs(network.parameters[key]).ravel().astype(np.float64) for key in keys])
        return [np.argsort(-sizes, kind="stable").astype(np.float64)]
    random = np.random.default_rng(0) if generator is None else generator
    total = sum(network.parameters[key].size for key in keys)
    return [random.permutation(total).astype(np.float64) for _ in range(REPEATS)]


def _nonzero_share(network: Network) -> float:
    arrays = [network.parameters[key] for key in weight_keys(network)]
    nonzero, total = sum(int(np.count_nonzero(a)) for a in arrays), sum(a.size for a in arrays)
    return nonzero / total if nonzero else 1.0


METHODS = tuple(
    Method(
        name=f"prunability-{kind}", summary=f"smallest share of weights at a given training loss, {kind} pruning",
        granularity="none", when="after training", criterion=criterion, data="labelled", recovery="none",
        guarantee="none", reference="Kuhn, Lyle, Gomez, Rothfuss, Gal 2021, arXiv 2103.06002",
        cost=f"{cost} evaluations of the training loss", use="provable.prunability.prunability",
    )
    for kind, criterion, cost in (("magnitude", "magnitude", 33), ("random", "probabilistic", 33 * REPEATS))
)  # fmt: skip
