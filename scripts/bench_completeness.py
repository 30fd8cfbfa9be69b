"""Do the branch and bound, the mixed-integer program and the exact enumeration agree on small networks?

    python scripts/bench_completeness.py [--networks 300] [--seconds 60] [--tolerance 1e-6]

Random ReLU networks with one or two inputs, one or two hidden layers of 2 to 6 units, and a twin that is rounded,
perturbed or has lost units (with their channels); dead, tied and constant units included. The enumeration of activation
regions in rational arithmetic is the truth. Exit code 1 if any method that ended disagrees by more than the tolerance.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from verify import Box, Network, verify_deviation
from verify.complete.enumeration import enumerate_regions
from verify.complete.milp import milp_deviation
from verify.complete.system import relu_system
from verify.network.graph import build


@dataclass(frozen=True)
class Instance:
    """A pair of small networks on a box."""

    original: Network
    compact: Network
    channels: Mapping[str, Any]
    box: Box


@dataclass(frozen=True)
class Outcome:
    """What each method says about one instance.

    Attributes:
        exact: the enumerated deviation; regions: activation regions of the pair.
        search_upper, search_lower: of the branch and bound; program, claimed: attained by and claimed by the program.
        seconds: processor seconds of enumeration, search and program.
    """

    exact: Fraction
    regions: int
    search_upper: float
    search_lower: float
    program: Fraction
    claimed: float
    seconds: tuple[float, float, float]

    def sound(self) -> bool:
        """No proved bound below the truth, nothing attained above it: exactly, without tolerance."""
        return Fraction(self.search_lower) <= self.exact <= Fraction(self.search_upper) and self.program <= self.exact

    def errors(self) -> tuple[float, float]:
        """Largest distance from the truth of the search's and of the program's two ends."""
        exact = float(self.exact)
        search = max(self.search_upper - exact, exact - self.search_lower)
        return search, max(abs(self.claimed - exact), exact - float(self.program))


def random_instance(rng: np.random.Generator) -> Instance:
    """One pair; a third each is rounded, perturbed, or has fewer units."""
    widths = [int(rng.integers(1, 3)), *(int(n) for n in rng.integers(2, 7, int(rng.integers(1, 3)))), 2]
    how = rng.choice(["rounded", "perturbed", "fewer"])
    kept = [list(range(n)) for n in widths]
    if how == "fewer":
        for layer in range(1, len(widths) - 1):
            kept[layer] = sorted(int(i) for i in rng.permutation(widths[layer])[: rng.integers(1, widths[layer])])
    large: dict[str, Any] = {}
    small: dict[str, Any] = {}
    steps, values, last = [], {}, "x"
    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        weight, bias = rng.normal(size=(n_out, n_in)) / np.sqrt(n_in), 0.3 * rng.normal(size=n_out)
        if n_out > 3:
            weight[0], bias[3] = 0.0, -50.0 * (i < len(widths) - 2)
            weight[1], bias[1] = weight[2], bias[2]
        large |= {f"w{i}": weight.astype(np.float32), f"b{i}": bias.astype(np.float32)}
        small |= {f"w{i}": large[f"w{i}"][np.ix_(kept[i + 1], kept[i])], f"b{i}": large[f"b{i}"][kept[i + 1]]}
        steps.append((f"a{i}", "linear", [last], {"weight": f"w{i}", "bias": f"b{i}"}, {}))
        last = f"a{i}"
        if i < len(widths) - 2:
            last = f"h{i}"
            steps.append((last, "relu", [f"a{i}"], {}, {}))
            values |= {name: {"axis": 0, "kept": kept[i + 1]} for name in (f"a{i}", last)}
    if how == "rounded":
        small = {k: v.astype(np.float16).astype(np.float32) for k, v in small.items()}
    elif how == "perturbed":
        small = {k: (v * (1 + 0.05 * rng.uniform(-1, 1, v.shape))).astype(np.float32) for k, v in small.items()}
    networks = [build("x", (widths[0],), steps, last, p) for p in (large, small)]
    box = Box.around(0.5 * rng.normal(size=widths[0]), float(rng.uniform(0.2, 1.5)))
    return Instance(networks[0], networks[1], {"version": 1, "values": values}, box)


def outcome(instance: Instance, seconds: float, tolerance: float) -> Outcome:
    """All three methods on one instance."""
    clock = [time.process_time()]
    system = relu_system(instance.original, instance.compact)
    exact = enumerate_regions(system, instance.box)
    assert exact is not None
    clock.append(time.process_time())
    goal = float(exact.deviation())
    ratio = 1.0 + 0.5 * tolerance / max(goal, tolerance)
    found = verify_deviation(
        instance.original, instance.compact, [instance.box], channels=instance.channels, timeout=seconds, ratio=ratio,
        floor=0.5 * tolerance,
    )  # fmt: skip
    clock.append(time.process_time())
    program = milp_deviation(system, instance.box)
    clock.append(time.process_time())
    return Outcome(
        exact.deviation(), exact.regions, found.upper, found.lower, program.deviation(), max(program.claimed),
        (clock[1] - clock[0], clock[2] - clock[1], clock[3] - clock[2]),
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=60.0, help="for the branch and bound, per network")
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(options.seed)
    outcomes = [outcome(random_instance(rng), options.seconds, options.tolerance) for _ in range(options.networks)]
    errors = np.array([o.errors() for o in outcomes])
    taken = np.array([o.seconds for o in outcomes]).sum(axis=0)
    unsound = sum(not o.sound() for o in outcomes)
    table = Table("method", "agree", "largest distance", "processor s", box=None)
    table.add_row("enumeration (exact)", "-", "-", f"{taken[0]:.1f}")
    for i, name in enumerate(("branch and bound", "mixed-integer program")):
        agree = int((errors[:, i] <= options.tolerance).sum())
        table.add_row(name, f"{agree}/{len(errors)}", f"{errors[:, i].max():.2e}", f"{taken[1 + i]:.1f}")
    regions = [o.regions for o in outcomes]
    console = Console(width=120)
    console.print(f"regions per pair: median {int(np.median(regions))}, most {max(regions)}")
    console.print(table)
    console.print(f"proved bounds below or attained values above the exact deviation: {unsound}")
    return int(unsound > 0 or bool((errors > options.tolerance).any()))


if __name__ == "__main__":
    raise SystemExit(main())
