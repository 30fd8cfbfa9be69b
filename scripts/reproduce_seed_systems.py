"""The seed systems on the digits data: one row per system, its headline idea measured, and what `verify` says.

    python scripts/reproduce_seed_systems.py [--quick] [--only NAME ...]

Systems that compress while training start from the shipped perceptron (64-100-100-10) or residual network, train on the
1297 training digits, and are judged on 500 held-out digits. Every result ends in the package's surgery. --quick trains
for a third of the steps. A new system is one function under `@system`.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from provable import reference
from provable.channels import channel_groups
from provable.cost import count_flops, count_parameters
from provable.errors import CollapseError, ScheduleError
from provable.training import (
    CSGD,
    DJPQ,
    DPF,
    DPP,
    GSM,
    SPP,
    Adaptive,
    ResidualGate,
    Synthetic,
    collapse_plan,
    collapse_steps,
    fix_zeros,
    prune_privately,
    release_zeros,
    remove_idle,
    trim,
)  # fmt: skip
from verify.formal.deviation import verify_deviation
from verify.network.graph import Network
from verify.network.module import NetworkModule
from verify.network.read_export import trace
from verify.report import words
from verify.spec.box import Box
from verify.statistical.certificate import certify_sample
from verify.statistical.disjoint import row_hashes

COVERAGE, CONFIDENCE, MARGIN = "0.98", "0.99", "1e-4"
POPULATION = "8x8 digits as the data set's 13 writers draw them"
RADIUS, SECONDS = 0.01, 4.0  # of the box on which a perceptron's deviation is bounded, and for its proof
BATCH = 64
POINT = 0.01 + 1e-9  # one point of accuracy, as a difference of two shares of 500


@dataclass(frozen=True)
class Outcome:
    """What one system did.

    Attributes:
        before: the network it started from, with the statement "after agrees with it" to be tested.
        full: the trained network at full size, whose deviation from `compact` is bounded; None where it is `before`.
        compact: what is left.
        channels: where its channels come from.
        nonzero: share of the original's parameters that is left and not zero.
        retraining: what training it took after the structure was chosen.
        claim, holds: the headline idea in numbers, and whether it was seen here.
    """

    before: Network
    full: Network
    compact: Network
    channels: dict[str, object]
    retraining: str
    claim: str
    holds: bool
    labels: str = "yes"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    system: str
    outcome: Outcome
    accuracy: tuple[float, float]
    seconds: float
    statistical: str
    formal: str


SYSTEMS: dict[str, Callable[[float], Outcome]] = {}


def system(name: str) -> Callable[[Callable[[float], Outcome]], Callable[[float], Outcome]]:
    """Registers a system: a function of the share of training steps to take."""

    def add(run: Callable[[float], Outcome]) -> Callable[[float], Outcome]:
        SYSTEMS[name] = run
        return run

    return add


def start(name: str) -> tuple[nn.Module, Network, reference.Reference]:
    """A trainable copy of a shipped network, the same as a graph, and its data."""
    shipped = reference.load(name)
    model = shipped.module
    network = trace(model, torch.from_numpy(shipped.calibration.images[:1]))
    return model.requires_grad_(True).train(), network, shipped


def fit(
    model: nn.Module,
    data: reference.Images,
    optimizer: torch.optim.Optimizer,
    steps: int,
    *,
    penalty: Callable[[], Tensor] = lambda: torch.zeros(()),
    after: Callable[[], None] = lambda: None,
    rate: Callable[[float], float] = lambda done: 1.0,
) -> None:
    """An ordinary training loop; `after` runs behind every step, `rate` scales the learning rate over time."""
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    generator = torch.Generator().manual_seed(0)
    rates = [group["lr"] for group in optimizer.param_groups]
    model.train()
    for step in range(steps):
        for group, lr in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = lr * rate(step / steps)
        rows = torch.randint(len(labels), (BATCH,), generator=generator)
        optimizer.zero_grad()
        (nn.functional.cross_entropy(model(images[rows]), labels[rows]) + penalty()).backward()
        optimizer.step()
        after()
    model.eval()


def cooled(done: float) -> float:
    return 1.0 if done < 0.6 else 0.1


def correct(network: Network, data: reference.Images) -> float:
    return reference.accuracy(NetworkModule(network), data)


def zeros(network: Network) -> float:
    """Share of zeros among the weights of layers."""
    weights = [network.parameters_of(n)["weight"] for n in network if n.op in ("linear", "conv")]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)


def _groups(network: Network) -> list[object]:
    return [g for g in channel_groups(network) if g.removable]


@system("C-SGD")
def csgd(share: float) -> Outcome:
    model, network, data = start("mlp")
    plain, _, _ = start("mlp")
    plan = collapse_plan(network, _groups(network), 0.5, generator=np.random.default_rng(0))
    steps = collapse_steps(lr=0.03, strength=0.5, momentum=0.9, to=1e-8) + int(600 * share)
    fit(model, data.calibration, CSGD(model.named_parameters(), plan, lr=0.03, strength=0.5), steps)
    fit(plain, data.calibration, torch.optim.SGD(plain.parameters(), lr=0.03, momentum=0.9), steps)
    example = torch.from_numpy(data.calibration.images[:1])
    result = trim(model, plan, example)
    forced = trim(plain, plan, example, tolerance=float("inf"))
    try:
        trim(plain, plan, example)
        refused = False
    except CollapseError:
        refused = True
    full, after = correct(result.original, data.held_out), correct(result.compact, data.held_out)
    lost = correct(forced.original, data.held_out) - correct(forced.compact, data.held_out)
    claim = (
        f"half of the neurons trimmed: {after - full:+.1%} accuracy, outputs differ by "
        f"{result.settings['difference']:.1g} of the largest; plain SGD trimmed by force loses {lost:.1%}"
    )
    return Outcome(network, result.original, result.compact, result.channels, "none", claim, refused and full == after)


def _sparse(model: nn.Module, before: Network, data: reference.Reference, full: Network, what: str) -> Outcome:
    result = remove_idle(model.eval(), torch.from_numpy(data.calibration.images[:1]))
    drop = correct(before, data.held_out) - correct(result.original, data.held_out)
    claim = f"{zeros(result.original):.1%} of the weights are 0 at {-drop:+.1%} accuracy{what}"
    return Outcome(before, full, result.compact, result.channels, "none", claim, drop <= POINT)


@system("GSM")
def gsm(share: float) -> Outcome:
    model, network, data = start("mlp")
    optimizer = GSM(model.parameters(), lr=0.01, nonzero_ratio=0.1, weight_decay=5e-3)
    fit(model, data.calibration, optimizer, int(12000 * share), rate=lambda done: 1.0 if done < 0.8 else 0.3)
    full = trace(model, torch.from_numpy(data.calibration.images[:1]))
    shares = optimizer.prune()
    found = _sparse(model, network, data, full, f"; per layer {', '.join(f'{s:.0%}' for s in shares)}")
    cut = correct(full, data.held_out) - correct(found.compact, data.held_out)
    return replace(found, claim=f"{found.claim}; the cut itself costs {cut:.1%}", holds=found.holds and cut <= 0.001)


@system("DPF")
def dpf(share: float) -> Outcome:
    model, network, data = start("mlp")
    steps = int(9000 * share)
    pruner = DPF(model, sparsity=0.9, steps=steps // 3)
    fit(model, data.calibration, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4), steps,
        after=pruner.step, rate=cooled)  # fmt: skip
    model = pruner.finish()
    return _sparse(model, network, data, trace(model, torch.from_numpy(data.calibration.images[:1])), "")


@system("DPP")
def dpp(share: float) -> Outcome:
    model, network, data = start("mlp")
    steps = int(4500 * share)
    pruner = DPP(model, 10, "weight", steps, generator=torch.Generator().manual_seed(0))
    fit(model, data.calibration, torch.optim.Adam(model.parameters(), lr=3e-3), steps, after=pruner.step,
        penalty=lambda: pruner.regulariser(1e-3), rate=cooled)  # fmt: skip
    sure, diverse = pruner.confidence(), pruner.diversity()
    model = pruner.finish()
    exact = all(int((m.weight != 0).sum(1).unique()) == 10 for m in model if isinstance(m, nn.Linear))
    what = f"; exactly 10 inputs per neuron: {exact}; confidence {min(sure.values()):.2f}"
    what += f", diversity {min(diverse.values()):.2f}"
    found = _sparse(model, network, data, trace(model, torch.from_numpy(data.calibration.images[:1])), what)
    return replace(found, holds=exact)


@system("SPP")
def spp(share: float) -> Outcome:
    model, network, data = start("mlp")
    pruner = SPP(model, 0.5, 6000, period=6, step=0.15, generator=torch.Generator().manual_seed(0), kind="channel")
    highest = {name: torch.zeros_like(g.probability) for name, g in pruner.groups.items()}

    def after() -> None:
        pruner.step()
        for name, group in pruner.groups.items():
            highest[name] = torch.maximum(highest[name], group.probability)

    rounds = 0
    while not pruner.done and rounds < 20:
        fit(model, data.calibration, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9), 300, after=after)
        rounds += 1
    back = sum(int(((highest[n] > 0.2) & (g.probability < 1)).sum()) for n, g in pruner.groups.items())
    model = fix_zeros(pruner.finish())
    fit(model, data.calibration, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9), int(1500 * share))
    model = release_zeros(model)
    what = f"; {back} groups had reached p > 0.2 and recovered"
    found = _sparse(model, network, data, trace(model, torch.from_numpy(data.calibration.images[:1])), what)
    return replace(found, retraining=f"{int(1500 * share)} steps", holds=found.holds and back > 0)


@system("DJPQ")
def djpq(share: float) -> Outcome:
    model, network, data = start("mlp")
    images = torch.from_numpy(data.calibration.images)
    pruner = DJPQ(model, images[:256], gamma=1e-4, beta=0.05, generator=torch.Generator().manual_seed(0))
    fit(model, data.calibration, torch.optim.Adam(model.parameters(), lr=3e-3), int(4500 * share),
        penalty=pruner.penalty, rate=cooled)  # fmt: skip
    quantised = reference.accuracy(model, data.held_out)
    ratio, rows = pruner.float_bops() / pruner.bops(), pruner.report()
    bits = ", ".join(f"{r.weight_bits}/{r.activation_bits}" for r in rows)
    model = pruner.finish()
    found = _sparse(model, network, data, trace(model, images[:1]), "")
    drop = correct(network, data.held_out) - quantised
    claim = f"BOPs / {ratio:.0f} (all layers counted) at {-drop:+.1%} accuracy; bits of weights/activations {bits}"
    return replace(found, claim=claim, holds=ratio >= 20 and drop <= POINT)


def _gated() -> nn.Sequential:
    def block(width: int) -> ResidualGate:
        branch = nn.Sequential(
            nn.Conv2d(12, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12),
        )  # fmt: skip
        return ResidualGate(branch, nn.Identity(), nn.ReLU())

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.ReLU(), block(12), block(12), block(12), nn.Flatten(),
            nn.Linear(12 * 16, 10),
        )  # fmt: skip


@system("Adaptive")
def adaptive(share: float) -> Outcome:
    data, model, steps = reference.load("cnn"), _gated(), int(1500 * share)
    example = torch.from_numpy(data.calibration.images[:1])
    fit(model, data.calibration, torch.optim.Adam(model.parameters(), lr=3e-3), steps, rate=cooled)
    before = trace(model, example)
    pruner = Adaptive(model, example, 0.45, lam=30.0, blocks_l1=0.05)
    shares = [s.rho for s in pruner.shares.values()]
    others = [p for p in model.parameters() if all(p is not rho for rho in shares)]
    optimizer = torch.optim.Adam([{"params": others}, {"params": shares, "lr": 0.03}], lr=5e-3)
    fit(model, data.calibration, optimizer, steps, penalty=pruner.penalty,
        after=pruner.step, rate=cooled)  # fmt: skip
    counts = ", ".join(f"{s.count()}" for s in pruner.shares.values())
    model = pruner.finish(slack=0.05)
    closed = sum(isinstance(m, ResidualGate) and m.branch is None for m in model)
    result = remove_idle(model.eval(), example)
    drop = correct(before, data.held_out) - correct(result.compact, data.held_out)
    left = count_parameters(result.compact) / count_parameters(before)
    claim = f"{left:.0%} of the parameters at {-drop:+.1%} accuracy; {closed} of 3 blocks gone, channels kept {counts}"
    return Outcome(before, before, result.compact, {}, "none", claim, left <= 0.5 and drop <= 0)


@system("Private ADMM")
def private(share: float) -> Outcome:
    model, network, data = start("cnn")
    pruned, residuals = prune_privately(model, Synthetic((1, 8, 8), 0.0, 1.0, levels=17), input_range=(0.0, 1.0),
                                        connectivity=0.6, count=48, iterations=20, lr=5e-3)  # fmt: skip
    pruned.eval()
    example = torch.from_numpy(data.calibration.images[:1])
    alone = reference.accuracy(pruned, data.held_out)
    names = [r.layer for r in residuals]
    fix_zeros(pruned, names)
    fit(pruned, data.calibration, torch.optim.SGD(pruned.parameters(), lr=0.02, momentum=0.9), int(600 * share))
    release_zeros(pruned)
    what = f"; before the client's retraining {alone:.1%}; ||W - Z|| at most {max(r.primal[-1] for r in residuals):.1g}"
    found = _sparse(pruned, network, data, trace(pruned.eval(), example), what)
    return replace(found, retraining=f"{int(600 * share)} steps by the client", labels="client only")


def judged(name: str, share: float) -> Row:
    """Run one system and ask `verify` about the result."""
    began = time.process_time()
    outcome = SYSTEMS[name](share)
    seconds = time.process_time() - began
    rank = len(outcome.before.input_shape)
    data = reference.load("mlp" if rank == 1 else "cnn")
    accuracy = correct(outcome.before, data.held_out), correct(outcome.compact, data.held_out)
    return Row(
        name, outcome, accuracy, seconds, _statistical(outcome, data), _formal(outcome, data) if rank == 1 else "-"
    )


def _statistical(outcome: Outcome, data: reference.Reference) -> str:
    certificate = certify_sample(
        outcome.before, outcome.compact, data.held_out.images, calibration_rows=row_hashes(data.calibration.images),
        coverage=COVERAGE, confidence=CONFIDENCE, margin=MARGIN, population=POPULATION,
    )  # fmt: skip
    claim = next(c for c in certificate.claims if c.question.kind == "disagreement")
    return f"<= {words.percent_up(float(claim.bound))}"


def _formal(outcome: Outcome, data: reference.Reference) -> str:
    box = Box.around(tuple(data.held_out.images[0].reshape(-1).tolist()), RADIUS, 0, 1)
    found = verify_deviation(outcome.full, outcome.compact, [box], channels=outcome.channels or None,
                             timeout=SECONDS, generator=np.random.default_rng(0))  # fmt: skip
    return f"<= {words.rounded_up(found.upper)}" if np.isfinite(found.upper) else found.verdict.value


def table(rows: Sequence[Row]) -> Table:
    """One line per system."""
    drawn = Table(title="Seed systems on 8x8 digits", show_lines=True)
    for head in ("system", "parameters", "multiply-adds", "accuracy", "CPU s", "labels", "retraining",
                 "differ from start", "deviation (box)", "headline", "seen"):  # fmt: skip
        drawn.add_column(head, overflow="fold")
    for row in rows:
        o = row.outcome
        drawn.add_row(
            row.system, f"{count_parameters(o.before):,} → {count_parameters(o.compact):,}",
            f"{count_flops(o.before):,} → {count_flops(o.compact):,}",
            f"{row.accuracy[0]:.1%} → {row.accuracy[1]:.1%}",
            f"{row.seconds:.0f}", o.labels, o.retraining, row.statistical, row.formal, o.claim,
            "yes" if o.holds else "no",
        )  # fmt: skip
    return drawn


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a third of the training steps")
    parser.add_argument("--only", nargs="+", choices=sorted(SYSTEMS), default=list(SYSTEMS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    screen, rows, failed = Console(width=200), [], []
    for name in track(arguments.only, description="systems", console=Console(stderr=True)):
        try:
            rows.append(judged(name, 1 / 3 if arguments.quick else 1.0))
        except ScheduleError as error:
            failed.append(f"{name}: no result, {error}")
    screen.print(table(rows))
    screen.print(
        "differ from start: share of the population whose digit differs from the starting network's, with 99 % "
        "confidence;\n"
        f"deviation (box): proved bound between the trained network and what is left of it, radius {RADIUS} around one "
        "held-out image, not audited;\nseen: whether the headline held in this run. Where it says no, it did not."
    )
    for line in failed:
        screen.print(line)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
