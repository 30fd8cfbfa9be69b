# ruff: noqa: E402  (thread counts must be set before numpy is loaded)
"""Every post-training score and selection on one task at equal multiply-adds.

    python scripts/reproduce_scores.py [--quick] [--keep 0.5] [--images 256] [--only taylor greedy] [--data DIR]

Task: ResNet-56 on CIFAR-10 with its batch norms, calibrated on training images, judged on the 1017 test images;
--quick, or no data folder: the residual network for 8x8 digits that ships with the package. Nothing is retrained.
"alone": the published method with weights as they are (merged or reweighted where it says so); "refitted": the same
channels with least squares afterwards. The statement bounds, with 99 % confidence for its row alone, the share of
inputs that the refitted network answers differently from the dense one; picking a row after reading the table voids it.
Recipes for weights keep that share of single weights instead (intercepts refitted). "kept" is the share of
multiply-adds whose weight is not 0. One thread; seconds are processor time of the refitted run.
"""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from provable.catalogue import method
from provable.coresets.sparsify import SPARSIFIERS
from provable.cost import count_flops, flops_by_node
from provable.errors import InputError
from provable.pipeline import compress
from provable.recipes import RECIPES
from provable.records import Compression
from provable.reference import load
from provable.structural_search import accuracy_of, structural_search
from verify.network.graph import Network
from verify.network.module import NetworkModule
from verify.network.read_export import trace
from verify.statistical.certificate import certify_sample

ROOT = Path(__file__).resolve().parents[1]
CONFIDENCE = "0.99"
WIDTH = 132
SEARCH_IMAGES = 200  # that score the structural search, with labels


@dataclass(frozen=True)
class Task:
    """A network with its images.

    Attributes:
        name: for the title.
        module: the dense network, with batch norms.
        network: the same, traced.
        calibration, labels: inputs for the methods; labels only for those that ask.
        scoring, answers: further training inputs with labels, for the structural search.
        test, truth: inputs nothing else looks at.
        population: what the test inputs are drawn from.
    """

    name: str
    module: nn.Module
    network: Network
    calibration: NDArray[np.float32]
    labels: NDArray[np.int64]
    scoring: NDArray[np.float32]
    answers: NDArray[np.int64]
    test: NDArray[np.float32]
    truth: NDArray[np.int64]
    population: str


@dataclass(frozen=True)
class Row:
    """One line; see the head of this file."""

    name: str
    needs: str
    kept: float
    alone: float | None
    refitted: float
    agreement: float
    seconds: float
    statement: str


def digits(images: int) -> Task:
    """The bundled residual network for 8x8 digits."""
    reference = load("cnn")
    known, fresh = reference.calibration, reference.held_out
    later = slice(images, images + SEARCH_IMAGES)
    return Task(
        "residual network, 8x8 digits", reference.module, trace(reference.module, torch.zeros(1, 1, 8, 8)),
        known.images[:images], known.labels[:images], known.images[later], known.labels[later],
        fresh.images, fresh.labels, "8x8 digits",
    )  # fmt: skip


def cifar(folder: Path, images: int, seed: int) -> Task:
    """ResNet-56 and CIFAR-10."""
    import reproduce_resnet56 as resnet

    module = resnet.dense_module(folder)
    data = resnet.read_data(folder, images + SEARCH_IMAGES, seed)
    with np.load(folder / "cifar10" / "cifar10_subset.npz", allow_pickle=False) as archive:
        known = archive["train_labels"].astype(np.int64)
    rows = np.random.default_rng(seed).permutation(len(known))[: images + SEARCH_IMAGES]
    return Task(
        "ResNet-56, CIFAR-10", module, trace(module, torch.zeros(1, 3, 32, 32)),
        data.calibration[:images], known[rows[:images]], data.calibration[images:], known[rows[images:]],
        data.test, data.labels, resnet.POPULATION,
    )  # fmt: skip


def measure(task: Task, names: list[str], keep: float) -> Iterator[Row]:
    """A row per method."""
    dense = winners(task.network, task.test)
    for name in names:
        if name == "cap-search":
            yield searched(task, dense)
            continue
        budget = {"weights": keep} if name in SPARSIFIERS else {"flops": keep}
        began = time.process_time()
        refitted = compress(task.module, task.calibration, keep=budget, recipe=name, labels=task.labels)
        seconds = time.process_time() - began
        alone = compress(
            task.module, task.calibration, keep=budget, recipe=name, labels=task.labels, compensation="none"
        )
        correct = float((winners(alone.compact, task.test) == task.truth).mean())
        yield row(task, name, refitted, dense, correct, seconds)


def searched(task: Task, dense: NDArray[np.int64]) -> Row:
    """The structural search down to two points below the dense network's accuracy on its scoring images."""
    began = time.process_time()
    score = accuracy_of(torch.from_numpy(task.scoring), task.answers)
    found = structural_search(task.module, task.calibration, score, lowest=score(task.network) - 0.02, steps=4)
    return row(task, "cap-search", found.result, dense, None, time.process_time() - began)


def row(
    task: Task, name: str, result: Compression, dense: NDArray[np.int64], alone: float | None, seconds: float
) -> Row:
    """What the test images say of one compact network."""
    found = winners(result.compact, task.test)
    certificate = certify_sample(
        task.network, result.compact, task.test, calibration_rows=result.calibration_rows, metrics=["argmax"],
        confidence=CONFIDENCE, margin="1e-4", population=task.population, engine="torch",
    )  # fmt: skip
    bound = float(certificate.claims[0].bound)
    return Row(
        name, method(name).data, nonzero_flops(result.compact) / count_flops(task.network), alone,
        float((found == task.truth).mean()), float((found == dense).mean()), seconds, f"at most {bound:.1%} differ",
    )  # fmt: skip


def nonzero_flops(network: Network) -> int:
    """Multiply-adds whose weight is not 0."""
    total = 0.0
    for name, flops in flops_by_node(network).items():
        weight = network.parameters_of(network.node(name))["weight"]
        total += flops * np.count_nonzero(weight) / weight.size
    return round(total)


@torch.inference_mode()
def winners(network: Network, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
    """Largest output of every input."""
    module = NetworkModule(network)
    parts = [module(torch.from_numpy(inputs[i : i + 128])).argmax(1) for i in range(0, len(inputs), 128)]
    return torch.cat(parts).numpy()


def table(task: Task, rows: list[Row], keep: float) -> Table:
    """The rows."""
    correct = float((winners(task.network, task.test) == task.truth).mean())
    shown = Table(title=f"{task.name}, {len(task.calibration)} images, {keep:.0%} kept, dense {correct:.1%}")
    for heading in ("method", "data"):
        shown.add_column(heading)
    for heading in ("kept", "alone", "refitted", "agrees with dense", "cpu s", f"statement ({CONFIDENCE})"):
        shown.add_column(heading, justify="right")
    for one in rows:
        alone = "" if one.alone is None else f"{one.alone:.1%}"
        shown.add_row(
            one.name, one.needs, f"{one.kept:.1%}", alone, f"{one.refitted:.1%}", f"{one.agreement:.1%}",
            f"{one.seconds:.1f}", one.statement,
        )  # fmt: skip
    return shown


def main() -> None:
    """Print the table."""
    known = [*RECIPES, *SPARSIFIERS, "cap-search"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the bundled digits network")
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--only", nargs="+", choices=known, help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    options = parser.parse_args()
    torch.set_num_threads(1)
    real = not options.quick and (options.data / "resnet").exists()
    task = cifar(options.data, options.images, options.seed) if real else digits(options.images)
    rows, refused, console = list[Row](), list[str](), Console(width=WIDTH)
    names, told = options.only or known, Console(stderr=True)
    for name in track(names, description="methods", console=told, transient=True):
        try:
            rows += measure(task, [name], options.keep)
        except InputError as error:  # a method that does not apply to this network says why
            refused.append(f"{name}: {error}")
    console.print(table(task, rows, options.keep))
    for line in refused:
        console.print(f"not applicable - {line}", highlight=False)


if __name__ == "__main__":
    main()
