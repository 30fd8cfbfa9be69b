"""What a row of the table of seed systems is made of: an outcome, the registry, and words that several rows share.

A new system is one function under `@system` in a file that `reproduce_seed_systems.py` imports.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from seed_tasks import Start, Task, accuracy, cooled, fit
from torch import nn

from provable.training import remove_idle
from verify.network.graph import Network

POINT = 0.01 + 1e-9  # one point of accuracy, as a difference of two shares


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


def decayed(*groups: dict[str, object]) -> torch.optim.Optimizer:
    """What the residual networks were trained with."""
    return torch.optim.AdamW(groups, lr=2e-3, weight_decay=0.2)


def longer(task: Task, name: str, steps: int) -> float:
    """What the whole network gains if it is trained on, with the same optimiser."""
    start = task.start(name)
    fit(start.module, start.train, decayed({"params": list(start.module.parameters())}), steps, rate=cooled)
    return -lost(start, start.module)


def sparse(start: Start, model: nn.Module, full: Network | None = None, what: str = "") -> Outcome:
    """The row of a model with zeros: what cannot matter leaves."""
    result = remove_idle(model.eval(), start.example)
    drop = lost(start, result.compact)
    claim = f"{zeros(result.original):.1%} of the weights are 0 at {-drop:+.2%} accuracy{what}"
    return Outcome(
        start, result.original if full is None else full, result.compact, dict(result.channels), seen(start), "none",
        claim, drop <= POINT,
    )  # fmt: skip
