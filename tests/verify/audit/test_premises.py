"""What a rule may use of the values before it: D only where the lift was checked, of each network its own values."""

from fractions import Fraction

import numpy as np
import pytest

from verify.audit import rules
from verify.audit.form import CENTRE, Form
from verify.audit.lift import Stage
from verify.audit.program import Step, integers
from verify.audit.rules import Symbols, Values


def points(*values: float, radius: float = 0.0) -> Form:
    """Constants, or intervals around them."""
    body = np.array(values, dtype=np.float64)[:, None, None]
    return Form(0, CENTRE, body, np.full((len(values), 1), radius))


def ends(form: Form) -> list[tuple[Fraction, Fraction]]:
    """Lower and upper end of every value, exactly."""
    unit = Fraction(2) ** form.exponent
    centre, radius = form.body[:, 0, 0].tolist(), form.radius[:, 0].tolist()
    return [(unit * (int(c) - int(r)), unit * (int(c) + int(r))) for c, r in zip(centre, radius, strict=True)]


TAPS = np.array([[0, 1], [1, 2], [2, 0]])
STEPS = {
    "relu": Step("s", "relu", ("x",), (3,)),
    "max": Step("s", "max", ("x",), (3,), TAPS),
    "gather": Step("s", "gather", ("x",), (3,), np.array([2, 0, 1])),
    "sum": Step("s", "sum", ("x", "x"), (3,), signs=(1, 1)),
}


def exact(kind: str, values: list[float]) -> list[float]:
    return {
        "relu": lambda v: [max(x, 0.0) for x in v],
        "max": lambda v: [max(v[i], v[j]) for i, j in TAPS.tolist()],
        "gather": lambda v: [v[2], v[0], v[1]],
        "sum": lambda v: [2 * x for x in v],
    }[kind](values)


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("aligned", [True, False])
def test_d_has_its_rule_only_where_the_premise_was_checked(kind: str, aligned: bool) -> None:
    """With the premise the D of the inputs is used as it is; without it D is made from both networks anew."""
    z, y = [3.0, -5.0, 8.0], [2.0, -7.0, 4.0]
    step = STEPS[kind]
    inputs = (0,) * len(step.inputs)
    kept = np.arange(3)
    stage = Stage(step, inputs, step, inputs, kept=kept, aligned=aligned)
    d = points(*(a - b for a, b in zip(z, y, strict=True)))
    applied = rules.apply(stage, [Values(points(*z), points(*y), d)], Symbols(2, np.array([99.0])))
    assert (applied.d is not None) is aligned
    completed = rules._complete(stage, applied)
    assert completed.d is not None
    outputs = [exact(kind, v) for v in (z, y)]
    for form, values in zip((completed.z, completed.y), outputs, strict=True):
        assert form is not None
        assert all(low <= v <= high for v, (low, high) in zip(values, ends(form), strict=True))
    for (low, high), a, b in zip(ends(completed.d), *outputs, strict=True):
        assert low <= a - b <= high
        assert high - low <= 1


@pytest.mark.parametrize("kind", ["relu", "max", "sum", "gather"])
def test_d_of_a_permuted_lift_is_the_plain_difference(kind: str) -> None:
    """Element j of y stands for element kept[j] of z; where that is no premise of a rule, D is z[kept] - y."""
    z, y, kept = [3.0, -5.0, 8.0], [2.0, -7.0, 4.0], np.array([2, 0, 1])
    step = STEPS[kind]
    inputs = (0,) * len(step.inputs)
    stage = Stage(step, inputs, step, inputs, kept=kept, aligned=False)
    d = points(*(a - b for a, b in zip(z, y, strict=True)))
    symbols = Symbols(2, np.array([99.0]))
    (found,) = rules.propagate([stage], Values(points(*z), points(*y), d), symbols, (1,))
    assert found.d is not None
    original, compact = exact(kind, z), exact(kind, y)
    for (low, high), k, b in zip(ends(found.d), kept.tolist(), compact, strict=True):
        assert low <= original[k] - b <= high


def test_an_affine_step_without_a_rule_for_d_gives_the_plain_difference() -> None:
    """Without the map of z in D' there is no rule, whatever `aligned` says."""
    from verify.audit.lift import own_map

    step = Step("s", "affine", ("x",), (2,), np.arange(3)[None, None], integers([1, 2, 3, 4, 5, 6], (1, 2, 3)))
    own = own_map(step, 3)
    stage = Stage(step, (0,), step, (0,), own, own, None, np.arange(2), True)
    z, y = (1.0, 2.0, 3.0), (5.0, -4.0, 1.0)
    wrong = points(0.0, 0.0, 0.0)
    (found,) = rules.propagate([stage], Values(points(*z), points(*y), wrong), Symbols(2, np.array([9.0])), (1,))
    assert found.d is not None
    weight = np.array([[1, 2, 3], [4, 5, 6]])
    for (low, high), value in zip(ends(found.d), (weight @ z - weight @ y).tolist(), strict=True):
        assert low <= value <= high


@pytest.mark.parametrize(("radius", "widest"), [(64.0, 1), (0.0, 1)])
def test_after_an_affine_step_d_is_the_narrower_of_rule_and_difference(radius: float, widest: int) -> None:
    """D known to +-64 next to exact z and y, and D known exactly next to z and y known to +-64."""
    from verify.audit.lift import stages_of_pair
    from verify.audit.program import Program

    step = Step("s", "affine", ("x",), (2,), np.arange(3)[None, None], integers([1, 2, 3, 4, 5, 6], (1, 2, 3)))
    net = Program("x", (3,), False, (step,), "s", "")
    stages = stages_of_pair(net, net, ())
    assert stages[0].aligned
    z, y, d = points(9, 8, 7, radius=64 - radius), points(9, 8, 6, radius=64 - radius), points(0, 0, 1, radius=radius)
    (found,) = rules.propagate(stages, Values(z, y, d), Symbols(2, np.array([9.0])), (1,))
    assert found.d is not None
    for (low, high), value in zip(ends(found.d), (3, 6), strict=True):
        assert low <= value <= high
        assert high - low <= widest
