"""Execute pairs of networks in float32 under ten orders of summation: does any leave the certified deviation?

For every pair a certificate for arithmetic "float32" is written and audited, and the audited bound is compared with the
difference between every execution of the original and every execution of the compact network, at the corners of the
domain and at random float32 points. Original and compact need not be executed in the same order.

Some pairs cancel on purpose (a large constant is added and taken away again), so that the order decides the result.

    python scripts/float32_orders.py --pairs 2000
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.audit import Verdict, audit
from verify.certificate.emit import emit_certificate
from verify.certificate.record import Correspondence
from verify.network.graph import Network, build
from verify.network.write_onnx import write_onnx
from verify.spec.box import Box
from verify.spec.deviation import Leaf

F = np.float32
Single = NDArray[np.float32]
Weights = list[tuple[Single, Single]]
Product = Callable[[Single, Single, Single], Single]  # x (B, n), w (m, n), b (m,) -> (B, m)
POINTS = 24


def terms(x: Single, w: Single, b: Single) -> Single:
    """All summands, (n + 1, B, m): products rounded to float32, and the bias."""
    products = (x[:, None, :] * w[None]).transpose(2, 0, 1)
    return np.concatenate([products, np.broadcast_to(b, (1, *products.shape[1:]))]).astype(F)


def in_order(summands: Single) -> Single:
    total = summands[0]
    for summand in summands[1:]:
        total = total + summand
    return total


def in_pairs(summands: Single) -> Single:
    while len(summands) > 1:
        rest = summands[len(summands) // 2 * 2 :]
        summands = np.concatenate([summands[0 : len(summands) - len(rest) : 2] + summands[1::2], rest])
    return summands[0]


def in_blocks(summands: Single) -> Single:
    return in_order(np.stack([in_order(summands[i : i + 16]) for i in range(0, len(summands), 16)]))


def by_size(x: Single, w: Single, b: Single) -> Single:
    all_terms = terms(x, w, b)
    return in_order(np.take_along_axis(all_terms, np.argsort(np.abs(all_terms), axis=0), axis=0))


def random_tree(x: Single, w: Single, b: Single) -> Single:
    rng, parts = np.random.default_rng(w.shape), list(terms(x, w, b))
    while len(parts) > 1:
        i, j = sorted(rng.choice(len(parts), 2, replace=False).tolist())
        right, left = parts.pop(j), parts.pop(i)
        parts.append(left + right)
    return parts[0]


def multiply_add(x: Single, w: Single, b: Single) -> Single:
    """Products unrounded (float64 holds them exactly), one rounding to float32 for each addition."""
    total = np.broadcast_to(b, (len(x), len(w))).astype(F)
    for k in range(w.shape[1]):
        total = (total.astype(np.float64) + x[:, k : k + 1].astype(np.float64) * w[:, k].astype(np.float64)).astype(F)
    return total


def in_batches(size: int) -> Product:
    """The matrix product of numpy's BLAS on batches of a size."""

    def product(x: Single, w: Single, b: Single) -> Single:
        return np.concatenate([x[i : i + size] @ w.T + b for i in range(0, len(x), size)])

    return product


ORDERS: dict[str, Product] = {
    "sequential": lambda x, w, b: in_order(terms(x, w, b)),
    "reversed": lambda x, w, b: in_order(terms(x, w, b)[::-1]),
    "sorted by size": by_size,
    "pairwise": lambda x, w, b: in_pairs(terms(x, w, b)),
    "blocks of 16": lambda x, w, b: in_blocks(terms(x, w, b)),
    "multiply-add chain": multiply_add,
    "random tree": random_tree,
    "BLAS, batch 1": in_batches(1),
    "BLAS, batch 7": in_batches(7),
    "BLAS, all at once": in_batches(POINTS * 10),
}


def execute(weights: Weights, x: Single, product: Product) -> Single:
    """A dense network in float32, ReLU between its layers."""
    for i, (w, b) in enumerate(weights):
        x = product(x if i == 0 else np.maximum(x, F(0)), w, b)
    return x


def pair(rng: np.random.Generator, cancelling: bool) -> tuple[Weights, Weights, list[NDArray[np.int64]]]:
    """Weights of an original and of a compact network, and the neurons that the compact one keeps."""
    sizes = [int(n) for n in (rng.integers(2, 6), *rng.integers(4, 40, int(rng.integers(1, 4))), rng.integers(1, 4))]
    original, compact, kept, stays = [], [], np.arange(sizes[0]), []
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        w = (rng.normal(size=(m, n)) * 2.0 ** rng.integers(-3, 3, (m, n)) / np.sqrt(n)).astype(F)
        b = (rng.normal(size=m) * 0.3).astype(F)
        if cancelling and n >= 4:
            w[:, 0], w[:, 1] = F(2.0**18), F(-(2.0**18))
        last = i == len(sizes) - 2
        stay = np.arange(m) if last else np.sort(rng.permutation(m)[: m - m // 5])
        original.append((w, b))
        compact.append((w[np.ix_(stay, kept)], b[stay]))
        kept = stay
        stays.append(stay)
    return original, compact, stays


def network(weights: Weights) -> Network:
    steps: list[Any] = []
    parameters, previous = {}, "x"
    for i, (w, b) in enumerate(weights):
        parameters |= {f"w{i}": w, f"b{i}": b}
        steps.append((f"h{i}", "linear", (previous,), {"weight": f"w{i}", "bias": f"b{i}"}, {}))
        previous = f"h{i}"
        if i < len(weights) - 1:
            steps.append((f"a{i}", "relu", (previous,), {}, {}))
            previous = f"a{i}"
    return build("x", (weights[0][0].shape[1],), steps, previous, parameters)


def judge(rng: np.random.Generator, folder: Path, cancelling: bool) -> tuple[Fraction, dict[str, float], float]:
    """The audited bound of a pair, the largest deviation with the original in each order, and how far orders differ."""
    original, compact, stays = pair(rng, cancelling)
    files = {"original": folder / "original.onnx", "compact": folder / "compact.onnx"}
    for path, weights in zip(files.values(), (original, compact), strict=True):
        write_onnx(network(weights), path)
    low = rng.normal(size=original[0][0].shape[1]).astype(F)
    high = low + rng.uniform(0, 0.2, len(low)).astype(F) * F(rng.integers(0, 2))
    lift = [
        Correspondence(name, name, 0, tuple(int(k) for k in stay))
        for i, stay in enumerate(stays[:-1]) for name in (f"h{i}", f"a{i}")
    ]  # fmt: skip
    emit_certificate(
        folder / "c.json", **files, boxes=[Box.from_floats(low.tolist(), high.tolist())], epsilon=Fraction(10**30),
        lift=lift, rule="pair_zonotope", parameters={"symbols": int(rng.choice([0, 40, 10**6]))}, trees=[Leaf()],
        arithmetic="float32",
    )  # fmt: skip
    report = audit(folder / "c.json", **files)
    if report.verdict is not Verdict.ACCEPT or report.bound is None:
        raise RuntimeError(f"no float32 bound: {report.reason}")
    inside = np.clip(rng.uniform(low, high, (POINTS - 2, len(low))).astype(F), low, high)
    x = np.concatenate([low[None], high[None], inside]).astype(F)
    first = {name: execute(original, x, product).astype(np.float64) for name, product in ORDERS.items()}
    second = [execute(compact, x, product).astype(np.float64) for product in ORDERS.values()]
    worst = {name: max(float(np.abs(a - b).max()) for b in second) for name, a in first.items()}
    apart = max(float(np.abs(a - first["sequential"]).max()) for a in first.values())
    return report.bound, worst, apart


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, begin = np.random.default_rng(options.seed), time.perf_counter()
    outside, closest, differ = Counter[str](), dict.fromkeys(ORDERS, 0.0), 0
    with tempfile.TemporaryDirectory() as name:
        for i in range(options.pairs):
            bound, worst, apart = judge(rng, Path(name), cancelling=i % 4 == 3)
            differ += apart > 0
            for order, deviation in worst.items():
                outside[order] += Fraction(deviation) > bound
                closest[order] = max(closest[order], deviation / float(bound) if bound else 0.0)
    print(f"{'order of the original':<22}{'outside':>10}{'largest deviation / bound':>28}")
    for order in ORDERS:
        print(f"{order:<22}{outside[order]:>10}{closest[order]:>28.4f}")
    print(
        f"{options.pairs} pairs x {len(ORDERS)}^2 orders x {POINTS} points in {time.perf_counter() - begin:.0f} s; the "
        f"orders disagree in {differ} pairs; outside the certified bound: {sum(outside.values())}"
    )
    return 1 if sum(outside.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
