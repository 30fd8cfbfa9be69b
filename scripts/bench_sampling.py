"""Sampling designs beside each other: held-out error of one layer at equal size, with and without compensation.

    python scripts/bench_sampling.py [--images 64] [--keep 0.5] [--draws 10] [--data ../shared/data] [--json FILE]

Layers: one residual block of each stage of ResNet-56; the channels of its first convolution leave, the second one reads
them. Calibration and held-out images are disjoint training images. Error: squared error at the second convolution's
stream over its variance, on held-out images, mean over the draws; "as drawn" with the design's own reweighting,
"refitted" after least squares on calibration images. Bound: what theory promises before the draw, in its own quantity:

    relative error e    |z_hat - z| <= e (z+ + z-), one fresh input; 1 is what removing every channel achieves
    loss                calibration squared error after compensation, above the full refit's, over the variance:
                        expectation over volume draws; greedy has no bound of its own, the compressor keeps its set only
                        if the exact loss meets this one

A bound that is not below the trivial one, or has no confidence left, says nothing: "vacuous".
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import reproduce_resnet56 as resnet
import torch
from rich.console import Console
from rich.table import Table

from provable.bounds.a_priori import APrioriBound
from provable.bounds.event_bound import coverage_by_exchangeability
from provable.bounds.layer_theorem import layer_bound
from provable.bounds.without_replacement_bound import without_replacement_bound
from provable.channels import channel_groups
from provable.compensation.least_squares import loss
from provable.compensation.moments import Moments
from provable.compensation.ridge import fit_held_out
from provable.observe import Statistics, observe
from provable.sampling import DESIGNS, Selection
from provable.selection.by_loss import promise, volume_options
from provable.selection.by_sensitivity import FAILURE, measured
from provable.selection.evidence import Evidence, evidence_of, staying
from provable.selection.greedy_elimination import eliminate
from verify.network.graph import Network
from verify.network.read_onnx import read_onnx

ORDER = ("with_replacement", "poisson", "pivotal", "volume", "greedy")
LAYERS = (3, 13, 24)
"""Positions among the inner groups of the network: one block of each stage."""


@dataclass(frozen=True)
class Row:
    """One design on one layer."""

    layer: str
    design: str
    kept: float
    channels: int
    as_drawn: float
    refitted: float
    bound: float | None
    trivial: float | None
    confidence: float | None
    quantity: str


def drawn(design: str, known: Evidence, count: int, random: np.random.Generator) -> tuple[Selection, APrioriBound]:
    """A selection, and what was promised about it."""
    if design == "greedy":
        promised = promise(volume_options(known), count)
        kept = eliminate(known.views, down_to=count).kept(count)
        return Selection(known.slots, kept), promised.derandomised()
    if design == "volume":
        promised = promise(volume_options(known), count)
        return DESIGNS["volume"].draw(promised.matrix, count, random), promised.derandomised()
    sensitivity = measured(known)
    covered = coverage_by_exchangeability(known.slots, sensitivity.images)
    selection = DESIGNS[design].draw(sensitivity.scores, count, random)
    if selection.draws is not None:
        return selection, layer_bound(selection.draws, sensitivity.total, known.sums, FAILURE, covered)
    return selection, without_replacement_bound(sensitivity.scores, count, known.sums, FAILURE, covered)


def errors(selection: Selection, known: Evidence, folds: list[Evidence], fresh: Evidence) -> tuple[float, float]:
    """Held-out error of the layer as drawn, and after least squares on the calibration images."""
    (view,), (judge,) = known.views, fresh.views
    kept = staying(view, selection.kept)
    weight = judge.weight[:, kept] * np.repeat(selection.factors()[list(selection.kept)], view.blocks.shape[1])
    regression = judge.regression
    bias = regression.mean_t - judge.weight @ regression.mean_x  # of the original layer
    found = fit_held_out([_moments(e) for e in folds], kept, prior=view.weight[:, kept]).fit
    as_drawn = loss(regression, kept, weight, bias)
    return judge.scale * as_drawn, judge.scale * loss(regression, kept, found.weight, found.intercept)


def _moments(known: Evidence) -> Moments:
    """The sums behind an evidence's only view."""
    r = known.views[0].regression
    n = r.count
    return Moments(
        n, n * r.mean_x, n * r.mean_t, n * (r.covariance + np.outer(r.mean_x, r.mean_x)),
        n * (r.cross + np.outer(r.mean_x, r.mean_t)), n * (r.energy + r.mean_t**2),
    )  # fmt: skip


def rows(network: Network, images: torch.Tensor, keep: float, draws: int) -> list[Row]:
    """Every design on every layer."""
    half = len(images) // 2
    inner = [g for g in channel_groups(network) if g.removable and g.inner and g.consumers]
    groups = [inner[i] for i in LAYERS if i < len(inner)]
    calibration, fresh_images = images[:half], images[half:]

    def seen(data: torch.Tensor, sensitivity: int | None = 0) -> Statistics:
        return observe(network, data, groups, sensitivity_images=sensitivity)

    whole, parts, held_out = seen(calibration, None), [seen(calibration[k::2]) for k in range(2)], seen(fresh_images)
    found = []
    for group in groups:
        known, fresh = evidence_of(network, whole, group), evidence_of(network, held_out, group)
        folds = [evidence_of(network, part, group) for part in parts]
        count = max(1, round(keep * known.slots))
        for design in ORDER:
            random = np.random.default_rng(0)
            times = 1 if design == "greedy" else draws
            outcomes = [drawn(design, known, count, random) for _ in range(times)]
            measured_errors = np.array([errors(selection, known, folds, fresh) for selection, _ in outcomes])
            bound = outcomes[0][1]
            kept = float(np.mean([len(selection.kept) for selection, _ in outcomes]))
            quantity = "relative error e" if "z_hat" in bound.quantity else "loss"
            found.append(
                Row(group.name, design, kept, known.slots, *measured_errors.mean(0).tolist(), bound.value,
                    bound.trivial, bound.confidence, quantity)
            )  # fmt: skip
    return found


def shown(found: list[Row]) -> Table:
    """The table."""
    table = Table(title="held-out error of a layer over its stream's variance, at equal size")
    for name in ("layer", "design", "kept", "as drawn", "refitted", "bound", "trivial", "says", "about"):
        table.add_column(name, justify="left" if name in ("layer", "design", "says", "about") else "right")
    for row in found:
        says = "something" if row.bound < row.trivial and row.confidence > 0 else "vacuous"
        table.add_row(
            row.layer, row.design, f"{row.kept:.1f}/{row.channels}", f"{row.as_drawn:.3g}", f"{row.refitted:.3g}",
            f"{row.bound:.3g}", f"{row.trivial:.3g}", says, row.quantity,
        )  # fmt: skip
    return table


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Sampling designs on layers of ResNet-56.")
    parser.add_argument("--images", type=int, default=64, help="calibration images; as many are held out")
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = resnet.read_data(options.data, 2 * options.images, 0)
    network = read_onnx(options.data / "resnet" / "resnet56_cifar10.onnx")
    found = rows(network, torch.as_tensor(data.calibration), options.keep, options.draws)
    Console(width=140).print(shown(found))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
