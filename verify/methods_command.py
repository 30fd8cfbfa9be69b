"""`verify methods`: the catalogue of the survey's algorithms, from their registry."""

import argparse
from collections.abc import Sequence

from verify.survey.algorithm import Facts
from verify.survey.registry import ALGORITHMS

COLUMNS = ("name", "kind", "inputs", "outputs", "complete", "network", "cost", "reference")
_SHORT = {"hyperrectangle": "HR", "polytope": "HP", "half-space": "HS", "complement": "PC"}
LEGEND = "HR hyperrectangle, HP polytope, HS half-space, PC complement of a closed convex set"


def row(facts: Facts) -> tuple[str, ...]:
    """The cells of one algorithm, in the order of `COLUMNS`."""
    network = "one output" if facts.one_output else "any"
    if facts.hidden_layers is not None:
        network = f"{facts.hidden_layers} hidden layer"
    sets = [" ".join(_SHORT[kind] for kind in kinds) for kinds in (facts.inputs, facts.outputs)]
    return facts.name, facts.kind, *sets, "yes" if facts.complete else "no", network, facts.cost, facts.reference


def run_methods(options: argparse.Namespace) -> int:
    """Print the table, plain text, one line per algorithm; returns the exit code."""
    rows: Sequence[tuple[str, ...]] = [COLUMNS, *(row(kind.facts) for kind in ALGORITHMS.values())]
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(COLUMNS))]
    for cells in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    print(f"\n{LEGEND}.\nFloat64 with solver tolerances: an answer is no certificate (theory_notes/survey.md).")
    return 0
