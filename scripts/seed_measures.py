"""Rows of what is no compression: measures of trained networks, and networks that are sparse representations.

The tables behind these rows are those of `reproduce_prunability.py` and `reproduce_sparse_coding.py`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reproduce_prunability import correlations, family
from reproduce_sparse_coding import FEW, STEPS, gaps, twins

ENOUGH = 20  # networks of a family
NEAR = 0.003  # relative gap that counts as the optimum


@dataclass(frozen=True)
class Finding:
    """What one measure or representation showed.

    Attributes:
        networks, data: what was trained, on what.
        claim, holds: the headline idea in numbers, and whether it was seen here.
    """

    networks: str
    data: str
    claim: str
    holds: bool


MEASURES: dict[str, Callable[[Path | None], Finding]] = {}


def measure(name: str) -> Callable[[Callable[[Path | None], Finding]], Callable[[Path | None], Finding]]:
    """Registers a measure, under its name in the catalogue: a function of the data folder, None for the quick form."""

    def add(run: Callable[[Path | None], Finding]) -> Callable[[Path | None], Finding]:
        MEASURES[name] = run
        return run

    return add


@measure("prunability-magnitude")
def prunability(folder: Path | None) -> Finding:
    """Both kinds of pruning, beside the best of the usual measures."""
    found = family(folder, 2 if folder is None else 3)
    with_gap = {name: gap for name, (gap, _) in correlations(found.members).items()}
    words = "; ".join(
        f"{name}: tau {t.tau:+.2f} ({t.low:+.2f} to {t.high:+.2f}, p = {t.p_value:.1e})" for name, t in with_gap.items()
    )
    holds = len(found.members) >= ENOUGH and all(with_gap[f"prunability, {k}"].low > 0 for k in ("magnitude", "random"))
    networks = f"{len(found.members)} perceptrons ({found.missed} more did not reach the training loss)"
    return Finding(networks, found.data, f"with the generalisation gap (95 % bootstrap): {words}", holds)


@measure("ml-ista")
def pursuit(_: Path | None) -> Finding:
    """The iteration beside an independent solver."""
    first, *_others, last = found = gaps()
    claim = "relative gap to the optimum after 1000 iterations, for falling first steps: ML-ISTA " + ", ".join(
        f"{one.gap[0]:.2%}" for one in found
    )
    claim += "; ML-FISTA " + ", ".join(f"{one.gap[1]:.3%}" for one in found)
    return Finding("-", "three random dictionaries", claim, max(first.gap) <= NEAR and last.gap[1] < first.gap[1])


@measure("unfolded-ml-ista")
def unfolded(folder: Path | None) -> Finding:
    """The unfolded network beside the plain CNN, from the same weights and from the usual ones."""
    found = twins(folder, FEW if folder is None else STEPS)
    by_name = {twin.name: twin for twin in found.rows}
    mine, plain, usual = (by_name[n] for n in ("ML-ISTA", "plain CNN", "plain CNN, usual initial size"))
    claim = "mean error of three seeds: " + "; ".join(
        f"{twin.name} {twin.mean:.2%} ({', '.join(f'{error:.2%}' for error in twin.errors)}; {twin.parameters:,})"
        for twin in found.rows
    )
    return Finding("six kinds, three seeds", found.title, claim, mine.mean < min(plain.mean, usual.mean))


def found_out(name: str, folder: Path | None) -> tuple[Finding, float]:
    """A finding and its processor seconds."""
    began = time.process_time()
    return MEASURES[name](folder), time.process_time() - began
