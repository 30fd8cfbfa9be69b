# ruff: noqa: E402  (thread counts must be set before numpy is loaded)
"""Multi-layer sparse coding: gaps to the optimum, and unfolded networks beside their feed-forward twin.

    python scripts/reproduce_sparse_coding.py [--quick] [--data ../shared/data]

First table: ML-ISTA and ML-FISTA on a random problem with three dictionaries, for falling first steps: gap to the
optimum of an independent solver (cvxpy), and the upper bound on it that needs no solver. Second table: the plain CNN
and its unfoldings, the same parameters, initial weights, data and schedule; three seeds. --quick, or without the data
folder: the bundled digits; else 2000 training images of MNIST. One thread, fixed seeds.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import cvxpy
import numpy as np
import torch
from labelled_images import DEVICE, Data, digits, mnist
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.nn import functional

from provable.sparse_coding import Dense, Problem, UnfoldedNetwork, gap_upper, ml_fista, ml_ista
from provable.sparse_coding.unfolded import MNIST_LAYERS, Layer

ROOT = Path(__file__).resolve().parents[1]
DIGIT_LAYERS = (Layer(12, 3, 1), Layer(24, 3, 2), Layer(32, 2, 1))
SIZES, PENALTIES = (9, 12, 12, 10), (0.05, 0.025, 0.0167)
STEPS, FEW = 300, 150
RATE = 1e-2  # of Adam at the start, for every network; chosen for the plain CNN on training images left out
KINDS = (("plain CNN", "ml-ista", 0), ("plain CNN, usual initial size", "usual", 0), ("ML-ISTA", "ml-ista", 2),
         ("ML-FISTA", "ml-fista", 2), ("layered BP", "layered", 2),
         ("ML-LISTA (more parameters)", "ml-lista", 2))  # fmt: skip


def random_problem(seed: int) -> tuple[Problem, float]:
    """A problem with three dictionaries, and its optimum."""
    random = np.random.default_rng(seed)
    matrices = [m / np.linalg.norm(m, axis=0) for m in (random.normal(size=shape) for shape in pairwise(SIZES))]
    y = random.normal(size=SIZES[-1]) * (random.random(SIZES[-1]) < 0.5)
    for matrix in reversed(matrices):
        y = matrix @ y
    deepest = cvxpy.Variable(SIZES[-1])
    codes = [deepest]
    for matrix in reversed(matrices[1:]):
        codes.append(matrix @ codes[-1])
    value = cvxpy.sum_squares(y - matrices[0] @ codes[-1]) / 2
    for code, penalty in zip(reversed(codes), PENALTIES, strict=True):
        value = value + penalty * cvxpy.norm1(code)
    best = float(cvxpy.Problem(cvxpy.Minimize(value)).solve(solver=cvxpy.CLARABEL))
    dictionaries = tuple(Dense(torch.from_numpy(m)) for m in matrices)
    return Problem(torch.from_numpy(y[None]), dictionaries, PENALTIES), best


@dataclass(frozen=True)
class Gaps:
    """Relative gap to the optimum after 1000 iterations, and the upper bound on it; ML-ISTA and ML-FISTA."""

    first: float
    gap: tuple[float, float]
    bound: tuple[float, float]


def gaps() -> list[Gaps]:
    """Both algorithms, for falling first steps."""
    problem, best = random_problem(2)
    found = []
    for first in (1.0, 0.3, 0.1, 0.03):
        steps = problem.steps(first)
        ends = [solve(problem, 1000, steps=steps) for solve in (ml_ista, ml_fista)]
        ista, fista = (float(end.objectives[-1]) / best - 1 for end in ends)
        above = [float(gap_upper(problem, end.code, steps=steps)) / best for end in ends]
        found.append(Gaps(first, (ista, fista), (above[0], above[1])))
    return found


def table_of_gaps(found: list[Gaps]) -> Table:
    """One row per first step."""
    shown = Table(title="three dictionaries, 1000 iterations: gap to the optimum (bound on the gap)")
    shown.add_column("first step x ||D_1||^2")
    for heading in ("ML-ISTA", "ML-FISTA"):
        shown.add_column(heading, justify="right")
    for one in found:
        shown.add_row(f"{one.first:g}", *(f"{g:.3%} ({b:.3%})" for g, b in zip(one.gap, one.bound, strict=True)))
    return shown


def trained(make: Callable[[torch.Generator], UnfoldedNetwork], data: Data, steps: int, seed: int) -> UnfoldedNetwork:
    """Adam with a rate that falls to zero; weights and batches are those of the seed, whatever the kind."""
    model = make(torch.Generator().manual_seed(seed)).to(DEVICE)
    batches = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        rows = torch.randint(0, len(data.train), (64,), generator=batches)
        optimiser.zero_grad()
        functional.cross_entropy(model(data.train[rows]), data.train_labels[rows]).backward()
        optimiser.step()
        schedule.step()
    return model


@torch.inference_mode()
def error_of(model: UnfoldedNetwork, data: Data) -> float:
    """Share of test images that it gets wrong."""
    parts = zip(data.test.split(500), data.test_labels.split(500), strict=True)
    return float(torch.cat([model(x).argmax(1) != y for x, y in parts]).double().mean())


@dataclass(frozen=True)
class Twin:
    """One kind of network: parameters, test errors of three seeds, processor seconds of their training."""

    name: str
    parameters: int
    errors: tuple[float, ...]
    seconds: float

    @property
    def mean(self) -> float:
        """Mean error."""
        return float(np.mean(self.errors))


@dataclass(frozen=True)
class Twins:
    """The plain CNN and its unfoldings, on what."""

    title: str
    rows: list[Twin]


def twins(folder: Path | None, steps: int) -> Twins:
    """Trained on the bundled digits or on 2000 images of MNIST."""
    data, layers = (digits("cnn"), DIGIT_LAYERS) if folder is None else (mnist(folder, 5000), MNIST_LAYERS)
    _, *shape = data.train.shape
    found, told = [], Console(stderr=True)
    for name, kind, unfoldings in track(KINDS, description="networks", console=told, transient=True):
        began = time.process_time()
        make = partial(_network, tuple(shape), layers, kind, unfoldings)
        models = [trained(make, data, steps, seed) for seed in range(3)]
        errors = tuple(error_of(model, data) for model in models)
        found.append(Twin(name, sum(p.numel() for p in models[0].parameters()), errors, time.process_time() - began))
    what = "the bundled digits" if folder is None else "MNIST"
    return Twins(f"{what}: {len(data.train)} training images, {steps} steps, {len(data.test)} test images", found)


def table_of_twins(found: Twins) -> Table:
    """One row per kind."""
    shown = Table(title=f"{found.title}: errors")
    shown.add_column("network")
    for heading in ("parameters", "seed 0", "seed 1", "seed 2", "mean", "cpu s"):
        shown.add_column(heading, justify="right")
    for twin in found.rows:
        cells = [f"{error:.2%}" for error in (*twin.errors, twin.mean)]
        shown.add_row(twin.name, f"{twin.parameters:,}", *cells, f"{twin.seconds:.0f}")
    return shown


def _network(
    shape: tuple[int, int, int], layers: tuple[Layer, ...], kind: str, unfoldings: int, generator: torch.Generator
) -> UnfoldedNetwork:
    if kind != "usual":
        return UnfoldedNetwork(shape, layers, 10, unfoldings=unfoldings, kind=kind, generator=generator)
    model = UnfoldedNetwork(shape, layers, 10, unfoldings=0, generator=generator)
    with torch.no_grad():
        for filters in model.filters:  # variances of order one in every layer: 1 / sqrt(fan in)
            filters.div_(filters.square().mean().sqrt() * filters[0].numel() ** 0.5)
    return model


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the bundled digits, 150 steps")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=118)
    console.print(table_of_gaps(gaps()))
    real = not options.quick and (options.data / "mnist").exists()
    console.print(table_of_twins(twins(options.data if real else None, FEW if options.quick else STEPS)))


if __name__ == "__main__":
    main()
