"""A small SAT solver: depth-first search with unit propagation (DPLL).

A literal is a non-zero integer: i for "variable i is true", -i for "false". A clause is satisfied if one of its
literals is. Enough for Planet's few clauses; not built for large formulas. Reference: Davis, Logemann, Loveland 1962.
"""

from collections.abc import Sequence

Clause = frozenset[int]


def satisfying(clauses: Sequence[Clause], variables: int) -> set[int] | None:
    """Literals of all variables 1..`variables` that satisfy every clause; None if there are none."""
    pending: list[set[int]] = [set()]
    while pending:
        known = _propagate(clauses, pending.pop())
        if known is None:
            continue
        free = next((v for v in range(1, variables + 1) if v not in known and -v not in known), None)
        if free is None:
            return known
        pending += [known | {-free}, known | {free}]
    return None


def _propagate(clauses: Sequence[Clause], literals: set[int]) -> set[int] | None:
    """All literals that follow by clauses with one open literal; None on a contradiction."""
    known, changed = set(literals), True
    while changed:
        changed = False
        for clause in clauses:
            if clause & known:
                continue
            opened = [literal for literal in clause if -literal not in known]
            if not opened:
                return None
            if len(opened) == 1:
                known.add(opened[0])
                changed = True
    return known
