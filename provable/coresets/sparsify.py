"""Weight-level sparsification from a model to a `Compression`: the recipes sipp, sipp-sampled, sipp-hybrid, corenet.

    trace ─► sensitivities of all weights ─► budget over classes ─► coresets ─► intercepts ─► surgery

The budget is the share of weights of linear and conv layers that stay nonzero. The network keeps its shapes except
where all weights that read a channel are zero: such channels leave by the same surgery as everywhere. Intercepts move
by the mean of what left, unless compensation is "none"; the promises are about the layer before that. Theory note:
weight_coresets.md. Not claimed: a smaller file or a faster run; zeros are stored.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from torch import Tensor, nn

from provable.bounds.a_priori import RELATIVE_ERROR, APrioriBound
from provable.bounds.event_bound import coverage_by_exchangeability
from provable.channels import ChannelGroup, channel_groups
from provable.compensation.moments import Matrix
from provable.compensation.refit import moved, with_new_bias
from provable.compensation.uncompensated import unshared
from provable.coresets import corenet, sipp
from provable.coresets.draw import Coreset, better, deterministic, expected_kept, sampled, top
from provable.coresets.sensitivity import Layer, layers_of
from provable.cost import count_flops, count_parameters
from provable.errors import BudgetError, GroupingError, InputError
from provable.method import Method
from provable.records import Compression, Cost, GroupReport
from provable.surgery import check_surgery, shrink
from verify.network.graph import Array, Network
from verify.statistical.disjoint import row_hashes

Choose = Callable[[Sequence[Layer], float, Generator], tuple[list[Coreset], float, str]]
"""(layers, weights to keep, generator) -> coresets, the allocation's knob, what it is."""


def largest(layers: Sequence[Layer], weights: float, generator: Generator) -> tuple[list[Coreset], float, str]:
    """SiPP, deterministic: the globally largest sensitivities, averaged over positions as published."""
    scores = np.concatenate([layer.average[layer.weight != 0.0] for layer in layers])
    count = int(weights)
    order = np.argsort(-scores, kind="stable")
    chosen = np.zeros(scores.size, dtype=bool)
    chosen[order[:count]] = True
    found, start = [], 0
    for layer in layers:
        kept, nonzero = np.zeros(layer.weight.shape, dtype=bool), layer.weight != 0.0
        kept[nonzero] = chosen[start : start + int(nonzero.sum())]
        start += int(nonzero.sum())
        found.append(deterministic(layer, kept))
    return found, float(scores[order[count - 1]]), "smallest sensitivity kept"


def randomised(layers: Sequence[Layer], weights: float, generator: Generator) -> tuple[list[Coreset], float, str]:
    """SiPP, sampled."""
    draws, knob = sipp_draws(layers, weights)
    return [sampled(layer, m, generator) for layer, m in zip(layers, draws, strict=True)], knob, SIPP_KNOB


def hybrid(layers: Sequence[Layer], weights: float, generator: Generator) -> tuple[list[Coreset], float, str]:
    """SiPP, class by class the better of sampling and of as many of its most sensitive weights."""
    draws, knob = sipp_draws(layers, weights)
    found = []
    for layer, times in zip(layers, draws, strict=True):
        drawn = sampled(layer, times, generator)
        counts = (layer.classes & (drawn.weight != 0.0)).sum(-1)
        found.append(better(layer, top(layer, counts), drawn))
    return found, knob, SIPP_KNOB


def by_corenet(layers: Sequence[Layer], weights: float, generator: Generator) -> tuple[list[Coreset], float, str]:
    """CoreNet: draws for one eps over the whole network."""
    corenet.growth(layers)  # refuses dead neurons before anything else
    low, high = -40.0, 120.0  # of log eps
    while high - low > 1e-4:
        middle = (low + high) / 2.0
        kept = _kept(layers, corenet.draws(layers, float(np.exp(middle))))
        low, high = (low, middle) if kept <= weights else (middle, high)
    error = float(np.exp(high))
    draws = corenet.draws(layers, error)
    return (
        [sampled(layer, m, generator) for layer, m in zip(layers, draws, strict=True)],
        error, "eps of the published constants, as an allocation knob",
    )  # fmt: skip


SIPP_KNOB = "price of a draw in mean error"


def sipp_draws(layers: Sequence[Layer], weights: float) -> tuple[list[Matrix], float]:
    """Draws of every class for that many nonzero weights in expectation (or fewer), and the price of a draw."""
    alphas = [sipp.strengths(n.totals, n.positions, n.weight.shape[1]) for n in layers]
    shares = [np.full(n.totals.shape, 1.0 / len(n.weight)) for n in layers]

    def draws(price: float) -> list[Matrix]:
        return [
            np.ceil(sipp.best_draws(a, share, n.sizes.astype(float), price) - 1e-9)
            for a, share, n in zip(alphas, shares, layers, strict=True)
        ]

    low, high = -120.0, 60.0  # of log price
    while high - low > 1e-6:
        middle = (low + high) / 2.0
        low, high = (low, middle) if _kept(layers, draws(float(np.exp(middle)))) <= weights else (middle, high)
    price = float(np.exp(high))
    return draws(price), price


def _kept(layers: Sequence[Layer], draws: Sequence[Matrix]) -> float:
    return sum(expected_kept(layer, times) for layer, times in zip(layers, draws, strict=True))


@dataclass(frozen=True)
class Sparsifier:
    """A recipe for weights: its name, one line, and how it chooses."""

    name: str
    summary: str
    choose: Choose


SPARSIFIERS: Mapping[str, Sparsifier] = {
    each.name: each
    for each in (
        Sparsifier("sipp", "largest weight sensitivities of the whole network", largest),
        Sparsifier("sipp-sampled", "weights drawn by sensitivity, draws by least mean error", randomised),
        Sparsifier("sipp-hybrid", "class by class the better of sampling and ranking", hybrid),
        Sparsifier("corenet", "weights drawn by sensitivity, draws by the coreset constants", by_corenet),
    )
}


def weight_share(keep: Mapping[str, float], recipe: str) -> float:
    """The share of weights to keep.

    Raises:
        BudgetError: another budget than weights, or a share outside (0, 1].
    """
    share = keep.get("weights")
    if len(keep) != 1 or isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 < share <= 1.0:
        raise BudgetError(
            f"recipe {recipe!r} removes single weights: keep={{'weights': f}}, a share f in (0, 1]; got {dict(keep)}"
        )
    return float(share)


def sparsify(
    model: nn.Module | Network,
    network: Network,
    inputs: Tensor,
    *,
    share: float,
    recipe: str,
    compensation: str,
    generator: Generator,
    settings: Mapping[str, Any],
) -> Compression:
    """The network with that share of its weights, told as a compression; called by `provable.compress`."""
    if compensation not in ("least_squares", "none"):
        raise InputError(f"recipe {recipe!r} refits intercepts only: compensation least_squares or none")
    from provable.pipeline import module_state

    began = time.perf_counter()
    names = [n.name for n in network if n.op in ("linear", "conv") and unshared(network, n.name)]
    layers = list(layers_of(network, inputs, names))
    whole = sum(int(np.count_nonzero(layer.weight)) for layer in layers)
    wanted = share * whole
    if wanted < 1.0:
        raise BudgetError(f"keep weights={share:g} of {whole} weights keeps none")
    observed = time.perf_counter()
    if share == 1.0:
        found, knob, meaning = [deterministic(n, n.weight != 0.0) for n in layers], 0.0, "nothing was removed"
    else:
        found, knob, meaning = SPARSIFIERS[recipe].choose(layers, wanted, generator)
    sparse = _written(network, layers, found, shift=compensation != "none")
    kept = _read(sparse)
    surgery = shrink(sparse, kept)
    error = check_surgery(sparse, kept, surgery, inputs[:2].numpy())
    state, notes = module_state(model, network, surgery)
    left = sum(int(np.count_nonzero(c.weight)) for c in found)
    return Compression(
        original=network, compact=surgery.compact, channels=surgery.channels, kept=kept,
        groups=tuple(_report(n, c) for n, c in zip(layers, found, strict=True)), layers=(),
        before=Cost(count_flops(network), count_parameters(network)),
        after=Cost(count_flops(surgery.compact), count_parameters(surgery.compact)),
        settings=settings, knob=knob, knob_meaning=meaning, surgery_error=error, samples=len(inputs),
        calibration_digest=_digest(inputs), calibration_rows=tuple(row_hashes(inputs.numpy())),
        seconds={"observe": observed - began, "select": time.perf_counter() - observed}, state_dict=state,
        notes=(*notes, f"{left:,} of {whole:,} weights stay nonzero ({left / whole:.2%}); kept/total counts weights"),
    )  # fmt: skip


def _digest(inputs: Tensor) -> str:
    import hashlib

    return hashlib.sha256(inputs.numpy().astype("<f4", copy=False).tobytes()).hexdigest()


def _written(network: Network, layers: Sequence[Layer], found: Sequence[Coreset], *, shift: bool) -> Network:
    """The network with the coresets' weights, and intercepts moved by the mean of what left."""
    changed: dict[str, Array] = {}
    moves: dict[str, Matrix] = {}
    for layer, coreset in zip(layers, found, strict=True):
        key = network.node(layer.node).parameters["weight"]
        old = network.parameters[key]
        weight = changed.setdefault(key, old.copy())
        untouched = coreset.weight == layer.weight
        rows = weight.reshape(len(old), -1)[layer.part.rows]
        fresh = np.where(untouched, rows, coreset.weight.astype(old.dtype))
        weight[layer.part.rows] = fresh.reshape(weight[layer.part.rows].shape)
        move = moves.setdefault(layer.node, np.zeros(len(old)))
        move[layer.part.rows] = (layer.weight - fresh.astype(np.float64)) @ layer.mean
    network = network.with_parameters(changed)
    for name, move in moves.items():
        if shift and move.any():
            node = network.node(name)
            bias = "bias" in node.parameters
            network = moved(network, node, "bias", move) if bias else with_new_bias(network, node, move)
    return network


def _read(network: Network) -> dict[str, tuple[int, ...]]:
    """Slots of inner groups that some consumer still reads; one slot of every group stays."""
    try:
        groups = channel_groups(network)
    except GroupingError:
        return {}
    kept = {}
    for group in groups:
        if group.removable and group.inner and group.consumers:
            reads = [slot for slot in range(len(group.slots)) if _is_read(network, group, slot)]
            if len(reads) < len(group.slots):
                kept[group.name] = tuple(reads) or (0,)
    return kept


def _is_read(network: Network, group: ChannelGroup, slot: int) -> bool:
    for consumer in group.consumers:
        weight = network.parameters[network.node(consumer.node).parameters["weight"]]
        if weight[:, [p % weight.shape[1] for p in consumer.positions[slot]]].any():
            return True
    return False


def _report(layer: Layer, coreset: Coreset) -> GroupReport:
    count = int(np.count_nonzero(layer.weight))
    covered = coverage_by_exchangeability(max(count, 1), layer.images)
    value = float(coreset.errors.max())
    drawn = 0.05 if coreset.sampled else 0.0
    bound = APrioriBound(
        "weight coreset", value, 1.0, max(0.0, covered.probability - drawn),
        f"{covered.assumption}; each filter and sign on its own", RELATIVE_ERROR,
    )  # fmt: skip
    return GroupReport(
        group=layer.node, consumers=(layer.node,), kept=int(np.count_nonzero(coreset.weight)), total=count,
        total_sensitivity=float(layer.totals.sum()), sensitivity_images=layer.images, bound=bound,
        method="sampled" if coreset.sampled else "ranked", loss=None, held_out_loss=None, ridge=None, note="",
    )  # fmt: skip


_SIPP = "Baykal, Liebenwein, Gilitschenski, Feldman, Rus, SIAM J. Math. Data Science 2022, arXiv 1910.05422"
_CORENET = "Baykal, Liebenwein, Gilitschenski, Feldman, Rus, ICLR 2019, arXiv 1804.05345"
METHODS = tuple(
    Method(
        name=each.name, summary=each.summary, granularity="weight", when="after training", criterion="sensitivity",
        data="unlabelled", recovery="closed form",
        guarantee="deterministic bound" if each.name == "sipp" else "probabilistic bound",
        reference=_CORENET if each.name == "corenet" else _SIPP, cost="every product of the network, for each image",
        use=f"provable compress --recipe {each.name}",
    )
    for each in SPARSIFIERS.values()
)  # fmt: skip
