# ruff: noqa: E402  (thread counts must be set before numpy is loaded)
"""Prunability against generalisation over a family of small networks: Kendall's tau and its interval.

    python scripts/reproduce_prunability.py [--quick] [--data ../shared/data]

A family: perceptrons of several widths, shares of wrong training labels, and seeds, all trained to the same training
loss (networks that do not reach it are left out and counted), or else the relative tolerance means different things.
--quick, or no data folder: the digits that ship with the package; else MNIST. The gap is test loss minus training loss;
tau is positive where networks that need more of their weights generalise worse. One thread, fixed seeds.
"""

import argparse
import os
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import torch
from labelled_images import DEVICE, Data, digits, mnist
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from provable.prunability import prunability, rank_correlation
from provable.prunability.rank import RankCorrelation
from verify.network.graph import Network
from verify.network.module import NetworkModule
from verify.network.read_export import trace

AIM, STEPS = 0.1, 4000
"""Training loss at which training stops, and after how many steps at the latest."""
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Member:
    """One trained network of the family.

    Attributes:
        width, noise, seed: what it is.
        training, test: losses.
        error: share of test images that it gets wrong.
        measures: name -> value.
    """

    width: int
    noise: float
    seed: int
    training: float
    test: float
    error: float
    measures: dict[str, float]

    @property
    def gap(self) -> float:
        """Generalisation gap in loss."""
        return self.test - self.training


@dataclass(frozen=True)
class Family:
    """The networks that reached the training loss, on what data, and how many did not."""

    data: str
    members: list[Member]
    missed: int


def family(folder: Path | None, seeds: int) -> Family:
    """12 networks per seed, on MNIST or on the bundled digits."""
    data = digits("mlp") if folder is None else mnist(folder, 4000)
    rows = replace(data, train=data.train.flatten(1), test=data.test.flatten(1))
    designs = list(product((32, 64, 160), (0.0, 0.1, 0.2, 0.3), range(seeds)))
    told = Console(stderr=True)
    found = [member(rows, *design) for design in track(designs, description="networks", console=told, transient=True)]
    members = [m for m in found if m.training <= 1.01 * AIM]
    name = "the bundled digits" if folder is None else "MNIST, 2000 training images"
    return Family(name, members, len(found) - len(members))


def member(data: Data, width: int, noise: float, seed: int) -> Member:
    """Train one network and measure it."""
    generator = torch.Generator().manual_seed(1000 * seed + width)
    torch.manual_seed(1000 * seed + width)  # the initial weights come from the global generator
    wrong = torch.rand(len(data.train), generator=generator) < noise
    other = torch.randint(0, 10, wrong.shape, generator=generator)
    labels = torch.where(wrong.to(DEVICE), other.to(DEVICE), data.train_labels)
    size = data.train.shape[1]
    module = nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    module.to(DEVICE)
    optimiser = torch.optim.Adam(module.parameters(), lr=2e-3)
    for step in range(STEPS):
        if step % 25 == 0 and float(functional.cross_entropy(module(data.train), labels).detach()) <= AIM:
            break
        rows = torch.randint(0, len(labels), (64,), generator=generator)
        optimiser.zero_grad()
        functional.cross_entropy(module(data.train[rows]), labels[rows]).backward()
        optimiser.step()
    network = trace(module.eval().requires_grad_(False), data.train[:1])
    measures: dict[str, float] = {}
    for kind in ("magnitude", "random"):
        found = prunability(
            network, lambda n: loss_of(n, data.train, labels), kind=kind, generator=np.random.default_rng(seed)
        )
        measures[f"prunability, {kind}"] = found.relative
        measures[f"prunability, {kind}, absolute"] = found.absolute
    measures["number of parameters"] = float(sum(p.numel() for p in module.parameters()))
    measures["norm of weights"] = float(sum(p.square().sum() for p in module.parameters()) ** 0.5)
    training, test = loss_of(network, data.train, labels), loss_of(network, data.test, data.test_labels)
    with torch.no_grad():
        error = float((module(data.test).argmax(1) != data.test_labels).float().mean())
    return Member(width, noise, seed, training, test, error, measures)


@torch.inference_mode()
def loss_of(network: Network, images: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy."""
    return float(functional.cross_entropy(NetworkModule(network).to(DEVICE)(images), labels))


def correlations(members: list[Member]) -> dict[str, tuple[RankCorrelation, RankCorrelation]]:
    """Every measure against the gap and against the test loss."""
    random, found = np.random.default_rng(0), dict[str, tuple[RankCorrelation, RankCorrelation]]()
    gaps, losses = [m.gap for m in members], [m.test for m in members]
    for name in members[0].measures:
        values = [m.measures[name] for m in members]
        found[name] = rank_correlation(values, gaps, random), rank_correlation(values, losses, random)
    return found


def table(members: list[Member], data: str) -> Table:
    """One row per measure."""
    shown = Table(
        title=f"{len(members)} networks on {data}: Kendall's tau with the generalisation gap and the test loss"
    )
    shown.add_column("measure")
    for heading in ("gap: tau", "95 % bootstrap", "p-value", "test loss: tau", "95 % bootstrap", "p-value"):
        shown.add_column(heading, justify="right")
    for name, pair in correlations(members).items():
        cells = [(f"{f.tau:+.2f}", f"{f.low:+.2f} .. {f.high:+.2f}", f"{f.p_value:.1e}") for f in pair]
        shown.add_row(name, *cells[0], *cells[1])
    return shown


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the bundled digits, 24 networks")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    real = not options.quick and (options.data / "mnist").exists()
    found = family(options.data if real else None, 2 if options.quick else 3)
    console = Console(width=118)
    console.print(table(found.members, found.data))
    gaps, errors = [m.gap for m in found.members], [m.error for m in found.members]
    console.print(
        f"gaps {min(gaps):.2f} to {max(gaps):.2f}, test errors {min(errors):.1%} to {max(errors):.1%}; "
        f"{found.missed} networks did not reach training loss {AIM}; "
        f"{time.process_time() - began:.0f} processor seconds",
        highlight=False,
    )


if __name__ == "__main__":
    main()
