"""Does any point of a box leave the bounds proved for it? Random pairs of networks, random boxes, chosen points.

    python scripts/bench_soundness.py [--pairs 5000] [--points 1000] [--seed 0]

dense: one to eight layers of 1 to 64 units with ReLU, weights over up to 2^+-40, sums and differences of branches,
    tied, dead and cancelling units. Points closest to a bound are evaluated in exact integer arithmetic: no margin.
other: the families of the law tests, every operation among them, in float64 with a margin for its own rounding.

Compact twins are rounded, perturbed, the same or unrelated, with all or some of the units. Points: a quarter each
uniform, corners, climbing the gradient of the difference, and on boundaries of ReLUs, found by bisection.
Bounds: zonotopes of the pair with all symbols, with seven and with none, each network on its own, backward with
searched slopes, and for every twentieth pair a search. Exit code 1 if any point is outside.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from verify import Box, Network, verify_deviation
from verify.empirical.ascent import Pair
from verify.formal.backward.bound import backward_bounds
from verify.formal.lift import align
from verify.formal.program import EVERY_SYMBOL, compile_pair
from verify.network.evaluate import evaluate, evaluate_values
from verify.network.graph import build

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.verify.formal.conftest import FAMILIES

OTHER = 0.25  # of the pairs
CLOSEST = 6  # points per output and side that are evaluated exactly
SEARCHED = 20
MARGIN = 1e-10
Floats = NDArray[np.float64]
Exact = Callable[[Floats], list[Fraction]]


@dataclass(frozen=True)
class Case:
    """A pair, and exact differences at a point where they can be had."""

    kind: str
    original: Network
    compact: Network
    channels: Mapping[str, Any] | None
    exact: Exact | None


def dense(rng: np.random.Generator) -> Case:
    """Two layered networks with the difficulties of the field."""
    depth, inputs = int(rng.integers(1, 9)), int(rng.integers(1, 7))
    span = rng.choice([0.0, 3.0, 40.0])
    noise = rng.choice([0.0, 2.0**-20, 2.0**-8, 0.3, 3.0])
    widths = [inputs, *(int(2.0 ** rng.uniform(0, 6)) for _ in range(depth - 1)), int(rng.integers(1, 4))]
    kept, values, steps, last = np.arange(inputs), {}, [], "x"
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    for i in range(depth):
        weight, bias = _layer(rng, widths[i], widths[i + 1], span)
        stay = _stay(rng, widths[i + 1]) if i < depth - 1 else np.arange(widths[-1])
        first |= {f"w{i}": weight, f"b{i}": bias}
        second |= {f"w{i}": _changed(rng, weight[np.ix_(stay, kept)], noise), f"b{i}": _changed(rng, bias[stay], noise)}
        steps.append((f"h{i}", "linear", (last,), {"weight": f"w{i}", "bias": f"b{i}"}, {}))
        last = f"h{i}"
        if i < depth - 1:
            steps.append((f"r{i}", "relu", (last,), {}, {}))
            last, names = f"r{i}", [f"h{i}", f"r{i}"]
            if rng.random() < 0.3:  # what is behind the ReLU, together with what is before it
                steps.append((f"s{i}", str(rng.choice(["add", "subtract"])), (f"r{i}", f"h{i}"), {}, {}))
                last, names = f"s{i}", [*names, f"s{i}"]
            if len(stay) < widths[i + 1]:
                values |= {name: {"axis": 0, "kept": stay.tolist()} for name in names}
        kept = stay
    networks = [build("x", (inputs,), steps, last, weights) for weights in (first, second)]
    channels = {"version": 1, "values": values}
    return Case("dense", networks[0], networks[1], channels, lambda x: _exact_difference(networks, x))


def _layer(rng: np.random.Generator, fan: int, width: int, span: float) -> tuple[NDArray[Any], NDArray[Any]]:
    scale = 2.0 ** rng.uniform(-span, span)
    weight = (rng.normal(size=(width, fan)) * scale / np.sqrt(fan)).astype(np.float32)
    bias = (rng.normal(size=width) * scale * rng.choice([0.0, 0.3, 3.0])).astype(np.float32)
    if width > 4:
        weight[1], bias[1] = weight[0], bias[0]  # tied
        weight[2], bias[2] = -weight[0], -bias[0]  # cancelling
        weight[3], bias[3] = 0.0, np.float32(-scale)  # dead
        bias[4] = np.float32(20.0 * scale)  # always active
    return weight, bias


def _stay(rng: np.random.Generator, width: int) -> NDArray[np.int64]:
    if width == 1 or rng.random() < 0.4:
        return np.arange(width)
    return np.sort(rng.permutation(width)[: int(rng.integers(1, width))])


def _changed(rng: np.random.Generator, array: NDArray[Any], noise: float) -> NDArray[Any]:
    return (array * (1.0 + noise * rng.normal(size=array.shape))).astype(np.float32)


def _exact_difference(networks: list[Network], x: Floats) -> list[Fraction]:
    first, second = (_exact_value(network, x) for network in networks)
    return [a - b for a, b in zip(first, second, strict=True)]


def _exact_value(network: Network, x: Floats) -> list[Fraction]:
    """Every value as integers times one power of two."""
    values = {network.input: _integers(x)}
    for node in network.nodes:
        (number, power), *other = (values[name] for name in node.inputs)
        if node.op == "relu":
            values[node.name] = np.where(number > 0, number, 0), power
        elif node.op == "linear":
            p = {role: _integers(array.astype(np.float64)) for role, array in network.parameters_of(node).items()}
            product = p["weight"][0] @ number, p["weight"][1] + power
            values[node.name] = _sum(product, p["bias"], 1)
        else:
            values[node.name] = _sum((number, power), other[0], 1 if node.op == "add" else -1)
    number, power = values[network.output]
    return [Fraction(int(v)) * Fraction(2) ** power for v in number]


def _integers(array: Floats) -> tuple[NDArray[Any], int]:
    mantissa, exponent = np.frexp(array)
    least = int(exponent[array != 0.0].min(initial=0)) - 53
    whole = (mantissa * 2.0**53).astype(np.int64).astype(object)
    return whole * 2 ** (np.maximum(exponent - 53 - least, 0).astype(object)), least


def _sum(a: tuple[NDArray[Any], int], b: tuple[NDArray[Any], int], sign: int) -> tuple[NDArray[Any], int]:
    power = min(a[1], b[1])
    return a[0] * 2 ** (a[1] - power) + sign * b[0] * 2 ** (b[1] - power), power


def other(rng: np.random.Generator) -> Case:
    """One of the families of the law tests."""
    name = str(rng.choice(list(FAMILIES)))
    original, compact, channels = FAMILIES[name](rng)
    return Case(name, original, compact, channels, None)


def box_of(rng: np.random.Generator, dimension: int) -> Box:
    """Of any size, some widths 0."""
    centre, size = rng.uniform(-1, 1, dimension), 2.0 ** rng.uniform(-9, 2)
    radius = size * rng.uniform(0, 1, dimension) * (rng.random(dimension) > 0.1)
    return Box.from_floats((centre - radius).tolist(), (centre + radius).tolist())


def points_in(rng: np.random.Generator, case: Case, box: Box, count: int) -> Floats:
    """``(count, inputs)``: uniform, corners, along gradients, on boundaries of ReLUs."""
    low, high = (np.array([float(v) for v in side]) for side in (box.lower, box.upper))
    uniform = low + rng.random((count // 4, box.dimension)) * (high - low)
    corners = np.where(rng.random((count // 4, box.dimension)) < 0.5, low, high)
    found = [uniform, corners, _climbing(rng, case, uniform, low, high), _boundary(rng, case, uniform, corners)]
    return np.clip(np.concatenate(found), low, high)


def _climbing(rng: np.random.Generator, case: Case, start: Floats, low: Floats, high: Floats) -> Floats:
    pair, x = Pair.of(case.original, case.compact), torch.from_numpy(start)
    for step in (0.5, 0.25, 1.0):
        x = x.detach().requires_grad_()
        difference = pair.difference(x)
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], difference.shape))
        (gradient,) = torch.autograd.grad((difference * signs).sum(), x)
        moved = x.detach().numpy() + step * (high - low) * np.sign(np.nan_to_num(gradient.numpy()))
        x = torch.from_numpy(np.clip(moved, low, high))
    return x.numpy()


def _boundary(rng: np.random.Generator, case: Case, a: Floats, b: Floats) -> Floats:
    """Between two points at which an argument has different signs, where it changes them; else in the middle."""
    arguments = [node.inputs[0] for node in case.original.nodes if node.op == "relu"]
    if not arguments:
        return 0.5 * (a + b)
    name = str(rng.choice(arguments))

    def sign(x: Floats) -> NDArray[np.bool_]:
        values = evaluate_values(case.original, x.reshape(-1, *case.original.input_shape), [name])[name]
        flat = values.reshape(len(x), -1)
        return flat[np.arange(len(x)), unit % flat.shape[1]] > 0.0

    unit = rng.integers(0, 2**20, len(a))
    at = sign(a)
    for _ in range(30):
        middle = 0.5 * (a + b)
        same = (sign(middle) == at)[:, None]
        a, b = np.where(same, middle, a), np.where(same, b, middle)
    return a


def bounds_of(case: Case, box: Box, *, search: bool) -> Iterator[tuple[str, Floats, Floats]]:
    """Name, lower and upper bounds ``(outputs,)``."""
    low, high = (torch.from_numpy(v)[None] for v in box.outward())
    lift = align(case.original, case.compact, case.channels)
    for name, relation, symbols in (
        ("pair", lift, EVERY_SYMBOL), ("pair, 7 symbols", lift, 7), ("pair, intervals", lift, 0),
        ("separate", None, EVERY_SYMBOL),
    ):  # fmt: skip
        found = compile_pair(case.original, case.compact, relation).bounds(low, high, symbols=symbols)
        yield name, found.lower[0].numpy(), found.upper[0].numpy()
    backward = backward_bounds(case.original, case.compact, lift, low, high, iterations=4, inner_iterations=2)
    yield "backward", backward.lower[0].numpy(), backward.upper[0].numpy()
    if search:
        result = verify_deviation(case.original, case.compact, [box], channels=case.channels, timeout=0.5)
        upper = np.array(result.per_output_upper)
        yield "search", -upper, upper


def outside(case: Case, points: Floats, low: Floats, high: Floats, difference: Floats, noise: float) -> int:
    """How many of the points that come closest to a bound are beyond it."""
    if case.exact is None:
        return int(((difference < low - noise) | (difference > high + noise)).any(axis=1).sum())
    count = 0
    for j in range(difference.shape[1]):
        order = np.argsort(difference[:, j])
        for i in {*order[:CLOSEST].tolist(), *order[-CLOSEST:].tolist()}:
            exact = case.exact(points[i])[j]
            count += bool(np.isfinite(low[j])) and exact < Fraction(float(low[j]))
            count += bool(np.isfinite(high[j])) and exact > Fraction(float(high[j]))
    return count


def judge(seed: int, points: int) -> tuple[str, dict[str, int], dict[str, float]]:
    """Kind of the pair, points outside per method, and the share of the proved width that points span."""
    rng = np.random.default_rng(seed)
    case = other(rng) if rng.random() < OTHER else dense(rng)
    box = box_of(rng, int(np.prod(case.original.input_shape)))
    x = points_in(rng, case, box, points)
    f, g = (evaluate(n, x.reshape(-1, *n.input_shape)).reshape(len(x), -1) for n in (case.original, case.compact))
    largest = max((float(np.abs(p).max(initial=0.0)) for p in case.original.parameters.values()), default=1.0)
    noise = MARGIN * (1.0 + np.abs(f).max() + np.abs(g).max()) * max(1.0, largest) ** 2
    wrong, reached = {}, {}
    for name, low, high in bounds_of(case, box, search=seed % SEARCHED == 0):
        wrong[name] = outside(case, x, low, high, f - g, noise)
        width = float((high - low).max())
        reached[name] = float(np.ptp(f - g, axis=0).max()) / width if 0.0 < width < np.inf else float("nan")
    return "dense" if case.exact else case.kind, wrong, reached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    wrong: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    reached: dict[str, list[float]] = {}
    for seed in track(range(options.seed, options.seed + options.pairs), "pairs"):
        kind, found, shares = judge(seed, options.points)
        kinds[kind] += 1
        for name, count in found.items():
            wrong[name] += count
            reached.setdefault(name, []).append(shares[name])
            if count:
                Console().print(f"seed {seed} ({kind}): {count} points outside the bounds of {name}")
    table = Table(box=None, pad_edge=False)
    for title in ("bounds", "pairs", "points outside", "width seen / proved, median"):
        table.add_column(title, justify="left" if title == "bounds" else "right")
    for name, shares_of in reached.items():
        table.add_row(name, f"{len(shares_of):,}", f"{wrong[name]:,}", f"{np.nanmedian(shares_of):.2g}")
    Console(width=140).print(table)
    Console(width=140).print(
        f"{options.points:,} points each; {', '.join(f'{k} {n:,}' for k, n in kinds.most_common())}"
    )
    return 1 if sum(wrong.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
