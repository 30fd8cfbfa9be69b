"""What forms tell the auditor of every value of two networks: where its descents begin."""

from collections.abc import Sequence

import numpy as np

from verify.audit.form import CENTRE, Form
from verify.audit.lift import Stage
from verify.audit.rules import Bounds, Symbols, Values, bounds_of, propagate


def known_bounds(stages: Sequence[Stage], x: Form, symbols: float = 1e6) -> list[Bounds]:
    """Bounds of the input and of every stage's result, on the leaves of `x`; `symbols` per leaf."""
    inputs, leaves = x.rem.shape
    zero = Form(0, CENTRE, np.zeros((inputs, 1, leaves)), np.zeros((inputs, leaves)))
    kept = [np.arange(inputs), *(s.kept for s in stages)]
    known: list[Bounds] = []
    budget = Symbols(2, np.full(leaves, symbols))
    propagate(stages, Values(x, x, zero), budget, (), lambda v: known.append(bounds_of(v, kept[len(known)])))
    return known
