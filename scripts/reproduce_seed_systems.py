# ruff: noqa: E402  (thread counts must be set before numpy is loaded)
"""The seed systems on small real tasks: one row per system, its headline idea measured, and what `verify` says.

    python scripts/reproduce_seed_systems.py [--quick] [--only NAME ...] [--data ../shared/data] [--validate]

MNIST, with networks trained at the start (`seed_tasks.py`), and ResNet-32 with a part of CIFAR-10 for CaP; --quick, or
no data folder: the digits that ship with the package, fewer training steps. Every result ends in the package's surgery.
Settings were chosen with --validate, which judges on training images that are left out of training. A new system is one
function under `@system`. One thread, fixed seeds. Prunability and sparse coding have scripts of their own.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from seed_tasks import BATCH, Start, Task, accuracy, cooled, digits, fit, mnist, moved, narrowed, resnet
from torch import nn

from provable.channels import channel_groups
from provable.cost import count_flops, count_parameters
from provable.errors import CollapseError, ScheduleError
from provable.pipeline import compress
from provable.records import Compression
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
from verify.network.read_export import trace
from verify.report import words
from verify.spec.box import Box
from verify.statistical.certificate import certify_sample
from verify.statistical.disjoint import row_hashes

ROOT = Path(__file__).resolve().parents[1]
CONFIDENCE, MARGIN = "0.99", "1e-4"
RADIUS, SECONDS = 0.01, 4.0  # of the box on which a perceptron's deviation is bounded, and for its proof
NEGLIGIBLE = 1e-12  # proved bounds below it are printed as it
POINT = 0.01 + 1e-9  # one point of accuracy, as a difference of two shares
IMAGES = 512  # for the methods that do not train


@dataclass(frozen=True)
class Outcome:
    """What one system did.

    Attributes:
        start: the network it started from, with its data; the statement "compact agrees with it" is tested.
        full: the trained network at full size, whose deviation from `compact` is bounded.
        compact: what is left.
        channels: where its channels come from; None if nothing maps them.
        data: what the method saw.
        retraining: what training it took after the structure was chosen.
        claim, holds: the headline idea in numbers, and whether it was seen here.
    """

    start: Start
    full: Network
    compact: Network
    channels: dict[str, object] | None
    data: str
    retraining: str
    claim: str
    holds: bool
    seconds: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    system: str
    outcome: Outcome
    accuracy: tuple[float, float]
    seconds: float
    statistical: str
    formal: str


SYSTEMS: dict[str, Callable[[Task], Outcome]] = {}


def system(name: str) -> Callable[[Callable[[Task], Outcome]], Callable[[Task], Outcome]]:
    """Registers a system, under its name in the catalogue: a function of the task."""

    def add(run: Callable[[Task], Outcome]) -> Callable[[Task], Outcome]:
        SYSTEMS[name] = run
        return run

    return add


def seen(start: Start) -> str:
    return f"{len(start.train):,} labelled"


def zeros(network: Network) -> float:
    """Share of zeros among the weights of layers."""
    weights = [network.parameters_of(n)["weight"] for n in network if n.op in ("linear", "conv")]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)


def lost(start: Start, compact: Network | nn.Module) -> float:
    """Accuracy of the starting network minus that of another, on the held-out images."""
    return accuracy(start.network, start.held_out) - accuracy(compact, start.held_out)


def noise(start: Start) -> float:
    """One standard error of the starting network's accuracy: what counts as no loss."""
    share = accuracy(start.network, start.held_out)
    return float((share * (1.0 - share) / len(start.held_out)) ** 0.5)


def momentum(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)


@system("c-sgd")
def csgd(task: Task) -> Outcome:
    start, plain = task.start("mlp"), task.start("mlp")
    groups = [g for g in channel_groups(start.network) if g.removable]
    plan = collapse_plan(start.network, groups, 0.5, generator=np.random.default_rng(0))
    steps = collapse_steps(lr=0.03, strength=0.5, momentum=0.9, to=1e-8) + task.steps(3000)
    fit(start.module, start.train, CSGD(start.module.named_parameters(), plan, lr=0.03, strength=0.5), steps)
    fit(plain.module, start.train, torch.optim.SGD(plain.module.parameters(), lr=0.03, momentum=0.9), steps)
    result = trim(start.module, plan, start.example)
    forced = trim(plain.module, plan, start.example, tolerance=float("inf"))
    try:
        trim(plain.module, plan, start.example)
        refused = False
    except CollapseError:
        refused = True
    full, after = (accuracy(n, start.held_out) for n in (result.original, result.compact))
    by_force = accuracy(forced.original, start.held_out) - accuracy(forced.compact, start.held_out)
    claim = (
        f"trimming half of the neurons: {after - full:+.2%} accuracy, outputs differ by "
        f"{result.settings['difference']:.1g} of the largest; plain SGD trimmed by force: {-by_force:+.1%}"
    )
    holds = refused and full == after and by_force > POINT and lost(start, result.compact) <= POINT
    return Outcome(start, result.original, result.compact, dict(result.channels), seen(start), "none", claim, holds)


def sparse(start: Start, model: nn.Module, full: Network | None = None, what: str = "") -> Outcome:
    """The row of a model with zeros: what cannot matter leaves."""
    result = remove_idle(model.eval(), start.example)
    drop = lost(start, result.compact)
    claim = f"{zeros(result.original):.1%} of the weights are 0 at {-drop:+.2%} accuracy{what}"
    return Outcome(
        start, result.original if full is None else full, result.compact, dict(result.channels), seen(start), "none",
        claim, drop <= POINT,
    )  # fmt: skip


@system("gsm")
def gsm(task: Task) -> Outcome:
    start = task.start("mlp")
    optimizer = GSM(start.module.parameters(), lr=0.02, nonzero_ratio=0.1, weight_decay=3e-3)
    fit(start.module, start.train, optimizer, task.steps(7000),
        rate=lambda done: 1.0 if done < 0.75 else 0.4 if done < 0.92 else 0.15)  # fmt: skip
    full = trace(start.module, start.example)
    shares = optimizer.prune()
    found = sparse(start, start.module, full, f"; zeros per layer {', '.join(f'{s:.0%}' for s in shares)}")
    cut = accuracy(full, start.held_out) - accuracy(found.compact, start.held_out)
    return replace(found, claim=f"{found.claim}; the cut itself costs {cut:.2%}")


@system("dpf")
def dpf(task: Task) -> Outcome:
    start, steps = task.start("mlp"), task.steps(5000)
    pruner = DPF(start.module, sparsity=0.9, steps=steps // 2)
    fit(start.module, start.train, momentum(start.module, 0.05), steps, after=pruner.step, rate=cooled)
    return sparse(start, pruner.finish())


@system("dpp")
def dpp(task: Task) -> Outcome:
    start, steps, count = task.start("mlp"), task.steps(1500), 16
    pruner = DPP(start.module, count, "weight", steps, generator=torch.Generator().manual_seed(0))
    logits = [mask.logits for mask in pruner.masks.values()]
    others = [p for p in start.module.parameters() if all(p is not chosen for chosen in logits)]
    optimizer = torch.optim.Adam([{"params": others, "lr": 2e-3}, {"params": logits, "lr": 1e-2}])
    fit(start.module, start.train, optimizer, steps, after=pruner.step, penalty=lambda: pruner.regulariser(1e-3),
        rate=cooled)  # fmt: skip
    sure, diverse = pruner.confidence(), pruner.diversity()
    model = pruner.finish()
    exact = all(int((m.weight != 0).sum(1).unique()) == count for m in model if isinstance(m, nn.Linear))
    what = f"; exactly {count} inputs per neuron: {exact}; confidence {min(sure.values()):.2f}"
    return replace(sparse(start, model, what=f"{what}, diversity {min(diverse.values()):.2f}"), holds=exact)


@system("spp")
def spp(task: Task) -> Outcome:
    start, more = task.start("mlp"), task.steps(3000)
    pruner = SPP(start.module, 0.5, 6000, period=6, step=0.15, generator=torch.Generator().manual_seed(0),
                 kind="channel")  # fmt: skip
    highest = {name: torch.zeros_like(g.probability) for name, g in pruner.groups.items()}

    def after() -> None:
        pruner.step()
        for name, group in pruner.groups.items():
            highest[name] = torch.maximum(highest[name], group.probability)

    rounds, optimizer = 0, momentum(start.module, 0.02)
    while not pruner.done and rounds < 20:
        fit(start.module, start.train, optimizer, 300, after=after, seed=rounds)
        rounds += 1
    back = sum(int(((highest[n] > 0.2) & (g.probability < 1)).sum()) for n, g in pruner.groups.items())
    model = fix_zeros(pruner.finish())
    fit(model, start.train, momentum(model, 0.05), more, rate=cooled)
    found = sparse(start, release_zeros(model), what=f"; {back} groups had reached p > 0.2 and recovered")
    return replace(found, retraining=f"{more} steps", holds=found.holds and back > 0)


@system("djpq")
def djpq(task: Task) -> Outcome:
    start = task.start("mlp")
    inputs = torch.from_numpy(start.train.images[:256])
    pruner = DJPQ(start.module, inputs, gamma=1e-4, beta=0.05, generator=torch.Generator().manual_seed(0))
    fast = [p for name, p in start.module.named_parameters() if not name.endswith((".layer.weight", ".layer.bias"))]
    slow = [p for name, p in start.module.named_parameters() if name.endswith((".layer.weight", ".layer.bias"))]
    optimizer = torch.optim.Adam([{"params": slow, "lr": 2e-3}, {"params": fast, "lr": 1e-2}])
    fit(start.module, start.train, optimizer, task.steps(1200), penalty=pruner.penalty, rate=cooled)
    drop, ratio, rows = lost(start, start.module), pruner.float_bops() / pruner.bops(), pruner.report()
    bits = ", ".join(f"{r.weight_bits}/{r.activation_bits}" for r in rows)
    kept = ", ".join(f"{r.outputs}" for r in rows[:-1])
    claim = (
        f"BOPs / {ratio:.0f} (all layers counted) at {-drop:+.2%} accuracy with rounded activations; neurons left "
        f"{kept}; bits of weights/activations {bits}"
    )
    return replace(sparse(start, pruner.finish()), claim=claim, holds=ratio >= 20 and drop <= POINT)


def decayed(*groups: dict[str, object]) -> torch.optim.Optimizer:
    """What the residual networks were trained with."""
    return torch.optim.AdamW(groups, lr=2e-3, weight_decay=0.2)


def longer(task: Task, name: str, steps: int) -> float:
    """What the whole network gains if it is trained on, with the same optimiser."""
    start = task.start(name)
    fit(start.module, start.train, decayed({"params": list(start.module.parameters())}), steps, rate=cooled)
    return -lost(start, start.module)


@dataclass(frozen=True)
class Adapted:
    """One run: what is left, how many blocks went, and channels kept per group."""

    compact: Network
    blocks: int
    counts: tuple[int, ...]


def adapted(start: Start, steps: int, more: int, slack: float, seed: int) -> Adapted:
    """Shares and gates learnt with the weights, then the smaller network trained on."""
    pruner = Adaptive(start.module, start.example, 0.48, lam=30.0, blocks_l1=0.05)
    shares = [s.rho for s in pruner.shares.values()]
    strengths = [m.strength for m in start.module if isinstance(m, ResidualGate)]  # type: ignore[attr-defined]
    learnt = {id(p) for p in (*shares, *strengths)}
    optimizer = decayed(
        {"params": [p for p in start.module.parameters() if id(p) not in learnt]},
        {"params": shares, "lr": 0.02, "weight_decay": 0.0},
        {"params": strengths, "lr": 0.01, "weight_decay": 0.0},
    )
    fit(start.module, start.train, optimizer, steps, penalty=pruner.penalty, after=pruner.step, seed=seed)
    counts = tuple(s.count() for s in pruner.shares.values())
    model = pruner.finish(slack=slack)
    blocks = sum(isinstance(m, ResidualGate) and m.branch is None for m in model)  # type: ignore[attr-defined]
    result = remove_idle(model.eval(), start.example)
    module = narrowed(model, result.state_dict or {})
    fit(module, start.train, decayed({"params": list(module.parameters())}), more, rate=cooled, seed=seed + 1)
    return Adapted(trace(module, start.example), blocks, counts)


@system("adaptive")
def adaptive(task: Task) -> Outcome:
    start, real = task.start("gated"), task.share == 1.0
    steps, more = max(300, task.steps(1500)), task.steps(1500)  # with fewer the shares do not get to the target
    runs = [
        adapted(task.start("gated"), steps, more, 0.02 if real else 0.1, 2 * seed) for seed in range(3 if real else 1)
    ]
    gains = [0.0 - lost(start, run.compact) for run in runs]
    left = max(count_parameters(run.compact) for run in runs) / count_parameters(start.network)
    claim = (
        f"{left:.0%} of the parameters at {np.mean(gains):+.2%} accuracy, the mean of "
        f"{', '.join(f'{gain:+.2%}' for gain in gains)}; blocks gone {', '.join(str(r.blocks) for r in runs)} of 3, "
        f"channels kept at first {', '.join(map(str, runs[0].counts))}; the whole network trained on as long: "
        f"{longer(task, 'gated', task.steps(3000)):+.2%}"
    )
    holds = left <= 0.5 and -float(np.mean(gains)) <= noise(start)
    return Outcome(start, start.network, runs[0].compact, None, seen(start), f"{more} steps", claim, holds)


@system("privacy-admm")
def private(task: Task) -> Outcome:
    start, more = task.start("cnn"), task.steps(600)
    shape = start.train.images.shape[1:]
    pruned, residuals = prune_privately(start.module, Synthetic(shape, 0.0, 1.0, levels=17), input_range=(0.0, 1.0),
                                        connectivity=0.6, count=48, iterations=20, lr=5e-3)  # fmt: skip
    alone = accuracy(pruned.eval(), start.held_out)
    names = [r.layer for r in residuals]
    fix_zeros(pruned, names)
    fit(pruned, start.train, momentum(pruned, 0.02), more, rate=cooled)
    release_zeros(pruned)
    what = f"; before the client's retraining {alone:.1%}; ||W - Z|| at most {max(r.primal[-1] for r in residuals):.1g}"
    found = sparse(start, pruned, what=what)
    return replace(found, retraining=f"{more} steps by the client", data="48 synthetic; labels: client")


def smaller(start: Start, keep: dict[str, float], recipe: str, **options: object) -> Compression:
    """One of the methods that do not train."""
    calibration = start.train.images[:IMAGES]
    labels = start.train.labels[:IMAGES]
    return compress(start.module, calibration, keep=keep, recipe=recipe, labels=labels, **options)  # type: ignore[arg-type]


def without_training(start: Start, result: Compression, what: str, holds: bool, labels: str = "unlabelled") -> Outcome:
    """The row of a result that nothing was trained for."""
    drop, images = lost(start, result.compact), min(IMAGES, len(start.train))
    claim = f"{count_flops(result.compact) / count_flops(start.network):.0%} of the multiply-adds at {-drop:+.2%}{what}"
    return Outcome(
        start, start.network, result.compact, dict(result.channels), f"{images} {labels}", "none", claim, holds
    )


def chance(start: Start, flops: float, **options: object) -> float:
    """What filters drawn by chance lose, the mean of three draws."""
    drawn = [smaller(start, {"flops": flops}, "random", generator=seed, **options) for seed in range(3)]
    return float(np.mean([lost(start, result.compact) for result in drawn]))


@system("pfp")
def pfp(task: Task) -> Outcome:
    start = task.start("cnn")
    result, by_chance = smaller(start, {"flops": 0.5}, "pfp"), chance(start, 0.5)
    holds = lost(start, result.compact) < by_chance
    return without_training(start, result, f"; filters drawn by chance {-by_chance:+.2%}", holds)


@system("corenet")
def corenet(task: Task) -> Outcome:
    return _coreset(task, "corenet")


@system("sipp")
def sipp(task: Task) -> Outcome:
    return _coreset(task, "sipp")


def _coreset(task: Task, recipe: str) -> Outcome:
    start = task.start("mlp")
    result = smaller(start, {"weights": 0.3 if recipe == "sipp" else 0.6}, recipe)
    drop = lost(start, result.compact)
    weights = [result.compact.parameters_of(n)["weight"] for n in result.compact if n.op == "linear"]
    kept = ", ".join(f"{np.count_nonzero(w) / w.size:.0%}" for w in weights)
    claim = (
        f"{zeros(result.compact):.1%} of the weights are 0 at {-drop:+.2%} accuracy, nothing trained; of the "
        f"layers that are left {kept} stays"
    )
    return Outcome(start, start.network, result.compact, dict(result.channels), f"{IMAGES} unlabelled", "none", claim,
                   drop <= POINT)  # fmt: skip


def finetuned(start: Start, result: Compression, steps: int, lr: float = 1e-3, decay: float = 0.01) -> Network:
    """Trained on."""
    module = narrowed(start.module, result.state_dict or {})
    fit(module, start.train, torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=decay), steps, rate=cooled)
    return trace(module, start.example)


@system("taylor")
def taylor(task: Task) -> Outcome:
    start, steps = task.start("cnn"), task.steps(300)
    ours = smaller(start, {"flops": 0.7}, "taylor", compensation="none")
    alone, by_chance = lost(start, ours.compact), chance(start, 0.7, compensation="none")
    compact = finetuned(start, ours, steps)
    what = f"; before the finetune {-alone:+.1%}, by chance {-by_chance:+.1%}"
    holds = alone < by_chance and lost(start, compact) <= POINT
    found = without_training(start, replace(ours, compact=compact), what, holds)
    return replace(found, data=seen(start), retraining=f"{steps} steps")


@system("similarity")
def similarity(task: Task) -> Outcome:
    start, steps = task.start("cnn"), task.steps(2000)
    ours = smaller(start, {"flops": 0.7}, "similarity", compensation="none")
    alone, compact = lost(start, ours.compact), finetuned(start, ours, steps, lr=2e-3, decay=0.2)
    what = (
        f"; before the finetune {-alone:+.1%}; the whole network trained on as long: {longer(task, 'cnn', steps):+.2%}"
    )
    found = without_training(start, replace(ours, compact=compact), what, lost(start, compact) <= noise(start))
    return replace(found, data=f"choice: none; {seen(start)}", retraining=f"{steps} steps")


@system("functionality")
def functionality(task: Task) -> Outcome:
    start = task.start("cnn")
    ours = smaller(start, {"flops": 0.7}, "functionality")
    alone = lost(start, smaller(start, {"flops": 0.7}, "functionality", compensation="none").compact)
    by_chance = chance(start, 0.7), chance(start, 0.7, compensation="none")
    holds = alone < by_chance[1] and lost(start, ours.compact) <= POINT
    what = f", by chance {-by_chance[0]:+.2%}; without refitting {-alone:+.1%}, by chance {-by_chance[1]:+.1%}"
    return without_training(start, ours, what, holds, "labelled")


@system("cap")
def cap(task: Task) -> Outcome:
    """Beside pruning by norms with retraining, which stops as soon as it is as accurate; it may look at held-out."""
    start = task.start("cnn") if task.folder is None else resnet(task.folder, validate=task.validate)
    start.module.requires_grad_(True)
    images, epochs = (IMAGES, 4) if task.folder is None else (256, 6)
    began = time.process_time()
    ours = compress(start.module, start.train.images[:images], keep={"flops": 0.6}, recipe="cap")
    mine, wanted = time.process_time() - began, accuracy(ours.compact, start.held_out)
    reached, rounds, spent = retrained_as_usual(start, wanted, epochs)
    told = "as accurate" if reached >= wanted else f"still only {reached:.2%}"
    what = (
        f", {images} images without labels, {mine:.0f} s; pruned by norms and retrained: {told} after {rounds} of "
        f"{epochs} epochs on {len(start.train):,} labelled images, {spent:.0f} s"
    )
    usable = reached > 0.5  # or else the comparison says nothing
    holds = usable and mine <= 0.1 * spent and images <= 0.1 * len(start.train)
    found = without_training(start, ours, what, holds)
    return replace(found, data=f"{images} unlabelled", seconds=mine)


def retrained_as_usual(start: Start, wanted: float, epochs: int) -> tuple[float, int, float]:
    """Smallest filters away, then momentum with a rate that falls, flips and shifts on photographs.

    Returns:
        Accuracy reached, epochs taken (fewer if it is as wanted after one of them), processor seconds of the training.
    """
    began = time.process_time()
    pruned = compress(start.module, start.train.images[:2], keep={"flops": 0.6}, recipe="l1-norm", compensation="none")
    module = narrowed(start.module, pruned.state_dict or {})
    spent, reached, rounds = time.process_time() - began, 0.0, 0
    optimizer, photographs = momentum(module, 0.01), start.train.images.shape[1] == 3
    while reached < wanted and rounds < epochs:
        began = time.process_time()
        rate = cooled(rounds / epochs)
        fit(module, start.train, optimizer, len(start.train) // BATCH, rate=lambda _, r=rate: r, seed=rounds,
            **({"change": moved} if photographs else {}))  # fmt: skip
        spent, rounds = spent + time.process_time() - began, rounds + 1
        reached = accuracy(module, start.held_out)
    return reached, rounds, spent


def judged(name: str, task: Task) -> Row:
    """Run one system and ask `verify` about the result."""
    began = time.process_time()
    outcome = SYSTEMS[name](task)
    seconds = time.process_time() - began if outcome.seconds is None else outcome.seconds
    data = outcome.start.held_out
    shares = accuracy(outcome.start.network, data), accuracy(outcome.compact, data)
    formal = _formal(outcome) if len(outcome.start.network.input_shape) == 1 else "-"
    return Row(name, outcome, shares, seconds, _statistical(outcome, task), formal)


def _statistical(outcome: Outcome, task: Task) -> str:
    certificate = certify_sample(
        outcome.start.network, outcome.compact, outcome.start.held_out.images, metrics=["argmax"], engine="torch",
        calibration_rows=row_hashes(outcome.start.train.images), confidence=CONFIDENCE, margin=MARGIN,
        population=task.population,
    )  # fmt: skip
    return f"<= {words.percent_up(float(certificate.claims[0].bound))}"


def _formal(outcome: Outcome) -> str:
    centre = tuple(outcome.start.held_out.images[0].reshape(-1).tolist())
    found = verify_deviation(outcome.full, outcome.compact, [Box.around(centre, RADIUS, 0, 1)],
                             channels=outcome.channels or None, timeout=SECONDS,
                             generator=np.random.default_rng(0))  # fmt: skip
    return f"<= {words.rounded_up(max(found.upper, NEGLIGIBLE))}" if np.isfinite(found.upper) else found.verdict.value


def table(rows: Sequence[Row], task: Task) -> Table:
    """One line per system."""
    drawn = Table(title=f"Seed systems on {task.title}", show_lines=True)
    for head in ("system", "parameters", "multiply-adds", "accuracy", "CPU s", "data", "retraining",
                 "differ from start", "deviation (box)", "headline", "seen"):  # fmt: skip
        drawn.add_column(head, overflow="fold")
    for row in rows:
        o = row.outcome
        before = o.start.network
        drawn.add_row(
            row.system, f"{count_parameters(before):,} → {count_parameters(o.compact):,}",
            f"{count_flops(before):,} → {count_flops(o.compact):,}",
            f"{row.accuracy[0]:.2%} → {row.accuracy[1]:.2%}",
            f"{row.seconds:.0f}", o.data, o.retraining, row.statistical, row.formal, o.claim,
            "yes" if o.holds else "no",
        )  # fmt: skip
    return drawn


def task_of(options: argparse.Namespace) -> Task:
    """What is run, as the arguments say."""
    if options.quick:
        return digits(0.06)
    if not (options.data / "mnist").exists():
        print(f"no MNIST in {options.data}: the digits that ship with the package instead")
        return digits(1.0)
    return mnist(options.data, validate=options.validate)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the bundled digits, a part of the training steps")
    parser.add_argument("--validate", action="store_true", help="judge on training images left out of training")
    parser.add_argument("--only", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task, screen = task_of(options), Console(width=200)
    began, rows, failed = time.process_time(), list[Row](), list[str]()
    told = Console(stderr=True, highlight=False)
    for name in track(options.only, description="systems", console=told):
        try:
            rows.append(judged(name, task))
            told.print(f"{name}: {rows[-1].outcome.claim}; {rows[-1].seconds:.0f} s", soft_wrap=True)
        except ScheduleError as error:
            failed.append(f"{name}: no result, {error}")
    screen.print(table(rows, task))
    screen.print(
        "differ from start: share of the population whose class differs from the starting network's, with 99 % "
        "confidence;\n"
        f"deviation (box): proved bound between the trained network and what is left of it, radius {RADIUS} around one "
        "held-out image, not audited;\n"
        "seen: whether the headline held in this run; no loss: at most one standard error of the starting accuracy.\n"
        f"{time.process_time() - began:.0f} processor seconds",
        highlight=False,
    )
    for line in failed:
        screen.print(line)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
