"""Rows of the methods that compress while training; every one ends in the package's surgery."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from seed_outcomes import POINT, Outcome, decayed, longer, lost, momentum, noise, seen, sparse, system
from seed_tasks import Start, Task, accuracy, cooled, fit, narrowed
from torch import nn

from provable.channels import channel_groups
from provable.cost import count_parameters
from provable.errors import CollapseError
from provable.training import (
    CSGD,
    DJPQ,
    DPF,
    DPP,
    GSM,
    SPP,
    Adaptive,
    PrivateADMM,
    ResidualGate,
    Synthetic,
    collapse_plan,
    collapse_steps,
    fix_zeros,
    release_zeros,
    remove_idle,
    trim,
)  # fmt: skip
from verify.network.graph import Network
from verify.network.read_export import trace


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
    pruner = PrivateADMM(start.module, Synthetic(shape, 0.0, 1.0, levels=17), input_range=(0.0, 1.0),
                         connectivity=0.6, count=48, iterations=20, lr=5e-3)  # fmt: skip
    pruned = pruner.run()
    alone = accuracy(pruned.eval(), start.held_out)
    fix_zeros(pruned, [r.layer for r in pruner.residuals])
    fit(pruned, start.train, momentum(pruned, 0.02), more, rate=cooled)
    release_zeros(pruned)
    largest = max(r.primal[-1] for r in pruner.residuals)
    what = f"; before the client's retraining {alone:.1%}; ||W - Z|| at most {largest:.1g}"
    found = sparse(start, pruned, what=what)
    return replace(found, retraining=f"{more} steps by the client", data="48 synthetic; labels: client")
