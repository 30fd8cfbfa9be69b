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


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 0), (0, 3), (-4, 2)])
def test_the_narrower_of_two_forms_keeps_all_of_its_radius(first: int, second: int) -> None:
    """Radii 24 and 40, 40 and 24, 8 and 8, with symbols and remainders on both sides, in units of their own."""

    def form(exponent: int, pairs: list[tuple[int, int]]) -> Form:
        scale = 2.0**-exponent * 16
        body = np.array([[[5.0], [s]] for s, _ in pairs]) * scale
        return Form(exponent, (*CENTRE, (1, 1)), body, np.array([[r] for _, r in pairs]) * scale)

    a = form(first, [(1, 23), (10, 30), (3, 5)])
    b = form(second, [(35, 5), (4, 20), (5, 3)])
    for found in (rules.narrower(a, b), rules.narrower(b, a)):
        unit = Fraction(2) ** found.exponent
        assert [int(r) * unit for r in found.radius.ravel()] == [16 * r for r in (24, 24, 8)]
        assert [int(r) * unit for r in found.rem.ravel()][:2] == [16 * 23, 16 * 20]
        assert [int(c) * unit for c in found.body[:, 0, 0]] == [80, 80, 80]
    for found in (rules.narrower(a.take(np.array([0])), b.take(np.array([0]))),):
        assert int(found.radius[0, 0]) * Fraction(2) ** found.exponent == 16 * 24
    assert rules.narrower(a, a) is a


@pytest.mark.parametrize("paired", [False, True])
def test_a_bias_that_is_not_known_exactly_widens_its_result(paired: bool) -> None:
    """Both networks have the bias 2^52 and 2^51, known to +-300 and +-500: y, z and D must leave room for that."""
    from verify.audit.exact import Real
    from verify.audit.lift import stages_alone, stages_of_pair
    from verify.audit.program import Program

    def net(value: float, error: float) -> Program:
        bias = Real(np.array([value]), np.array([0]), np.array([error]))
        step = Step("s", "affine", ("x",), (1,), np.zeros((1, 1, 1), np.int64), integers([1], (1, 1, 1)), bias)
        return Program("x", (1,), False, (step,), "s", "")

    first, second = net(2.0**52, 300.0), net(2.0**51, 500.0)
    stages = stages_of_pair(first, second, ()) if paired else stages_alone(first)
    x = points(0)
    values = Values(x, x, x) if paired else Values(x)
    (found,) = rules.propagate(stages, values, Symbols(2, np.array([9.0])), (1,))
    wanted = [(found.z, 2**52, 300)] + ([(found.y, 2**51, 500), (found.d, 2**51, 800)] if paired else [])
    for form, centre, error in wanted:
        assert form is not None
        ((low, high),) = ends(form)
        assert low <= centre - error
        assert centre + error <= high
        assert high - low <= 2**17  # forty bits are kept of 2^52 and more


@pytest.mark.parametrize("kind", ["affine", "sum"])
@pytest.mark.parametrize("budget", [0.0, 99.0])
def test_what_executions_round_is_in_z_and_y_and_twice_in_d(kind: str, budget: float) -> None:
    """Values near 2^30, so that one rounding is about 2^6: it must be in every form, and only for float32 claims."""
    from verify.audit.lift import stages_of_pair
    from verify.audit.program import Program

    affine = Step("s", "affine", ("x",), (1,), np.arange(2)[None, None], integers([1, 1], (1, 1, 2)))
    step = affine if kind == "affine" else Step("s", "sum", ("x", "x"), (2,), signs=(1, 1))
    net = Program("x", (2,), False, (step,), "s", "", True)
    stages = stages_of_pair(net, net, ())
    assert stages[0].aligned
    size = 2**30
    x = points(size, size)
    m = 5 if kind == "affine" else 2  # n + 3 for an affine step
    one = m * 2 * size / 2**24
    for float32 in (True, False):
        first = Values(x, x, points(0, 0))
        (found,) = rules.propagate(stages, first, Symbols(2, np.array([budget]), float32), (1,))
        for form, centre, least in ((found.z, 2 * size, one), (found.y, 2 * size, one), (found.d, 0, 2 * one)):
            assert form is not None
            low, high = ends(form)[0]
            assert low <= centre - least * float32
            assert centre + least * float32 <= high
            assert high - low <= 2 * least * float32 * (m + 1.01) / m + 0.1


def test_a_rule_for_d_keeps_the_errors_of_both_maps() -> None:
    """Two weights known to +-20 and +-30 only, exact inputs z and D: D' = (w - v) z + v D has all of these errors."""
    from verify.audit.exact import Real
    from verify.audit.lift import stages_of_pair
    from verify.audit.program import Program

    def net(value: float, error: float) -> Program:
        weight = Real(np.full((1, 1, 1), value), np.zeros((1, 1, 1), np.int64), np.full((1, 1, 1), error))
        return Program(
            "x", (1,), False, (Step("s", "affine", ("x",), (1,), np.zeros((1, 1, 1), np.int64), weight),), "s", ""
        )

    stages = stages_of_pair(net(2.0**20, 20.0), net(2.0**19, 30.0), ())
    assert stages[0].aligned
    for z, y in ((1000.0, 1000.0), (1000.0, 500.0)):
        applied = rules.apply(stages[0], [Values(points(z), points(y), points(z - y))], Symbols(2, np.array([9.0])))
        products = [w * z - v * y for w in (2**20 - 20, 2**20 + 20) for v in (2**19 - 30, 2**19 + 30)]
        assert applied.d is not None
        ((low, high),) = ends(applied.d)
        assert low <= min(products)
        assert max(products) <= high


def test_errors_of_a_sum_are_those_of_its_own_network() -> None:
    """z is near 2^30 and y near 2^20: the rounding of z must not be taken for that of y, nor the other way."""
    step = STEPS["sum"]
    stage = Stage(step, (0, 0), step, (0, 0), kept=np.arange(3), aligned=True)
    z, y = points(*[2.0**30] * 3), points(*[2.0**20] * 3)
    values = Values(z, y, points(*[2.0**30 - 2.0**20] * 3))
    found = rules.apply(stage, [values], Symbols(2, np.array([99.0]), True))
    for form, centre, least in ((found.z, 2**31, 256), (found.y, 2**21, 0.25), (found.d, 2**31 - 2**21, 256.25)):
        assert form is not None
        for low, high in ends(form):
            assert low <= centre - least
            assert centre + least <= high
            assert high - low <= 3.1 * least
    unknown = rules.apply(Stage(step, (0, 0), step, (0, 0)), [values], Symbols(2, np.array([99.0]), True))
    assert unknown.d is None


def test_a_value_that_is_missing_makes_no_sum_and_no_join() -> None:
    one = points(1.0, 2.0, 3.0)
    step = STEPS["sum"]
    stage = Stage(step, (0, 1), step, (0, 1), kept=np.arange(3), aligned=True)
    found = rules.apply(stage, [Values(one, one, one), Values(one, one, None)], Symbols(2, np.array([9.0])))
    assert found.d is None
    gather = Step("g", "gather", ("a", "b"), (2,), np.array([0, 5]))
    stage = Stage(gather, (0, 1), gather, (0, 1), kept=np.arange(2), aligned=True)
    found = rules.apply(stage, [Values(one, one, one), Values(one, one, None)], Symbols(2, np.array([9.0])))
    assert found.d is None
    assert ends(found.z) == [(1, 1), (3, 3)]


def test_signs_are_those_of_each_network() -> None:
    """x + x in one network and x - x in the other: no rule for D, and each its own sum."""
    plus, minus = (Step("s", "sum", ("x", "x"), (1,), signs=(1, sign)) for sign in (1, -1))
    stage = Stage(plus, (0, 0), minus, (0, 0), kept=np.arange(1))
    (found,) = rules.propagate([stage], Values(points(5), points(7), points(-2)), Symbols(2, np.array([9.0])), (1,))
    assert found.y is not None
    assert found.d is not None
    for form, value in ((found.z, 10), (found.y, 0), (found.d, 10)):
        ((low, high),) = ends(form)
        assert low <= value <= high
        assert high - low < 1


def test_a_fill_that_is_not_known_exactly_widens_its_places() -> None:
    from verify.audit.exact import Real

    fill = Real(np.array(2.0**52), np.array(0), np.array(400.0))
    step = Step("g", "gather", ("x",), (2,), np.array([0, -1]), bias=fill)
    found = rules.apply(Stage(step, (0,)), [Values(points(3.0))], Symbols(2, np.array([9.0])))
    (low, high), (least, most) = ends(found.z)
    assert low <= 3 <= high
    assert least <= 2**52 - 400
    assert most >= 2**52 + 400


@pytest.mark.parametrize(
    ("taps", "fill", "wanted"), [([0, -1], None, [3, 0]), ([-1, -1], 6, [6, 6]), ([-1], None, [0])]
)
def test_places_that_read_nothing_hold_the_constant_or_zero(
    taps: list[int], fill: int | None, wanted: list[int]
) -> None:
    bias = None if fill is None else integers([fill], ())
    step = Step("g", "gather", ("x",), (len(taps),), np.array(taps), bias=bias)
    found = rules.apply(Stage(step, (0,)), [Values(points(3.0))], Symbols(2, np.array([9.0])))
    assert [low <= value <= high for (low, high), value in zip(ends(found.z), wanted, strict=True)] == [True] * len(
        taps
    )
    assert all(high - low < Fraction(1, 100) for low, high in ends(found.z))


def test_a_sum_of_one_network_alone_rounds_too() -> None:
    from verify.audit.lift import stages_alone
    from verify.audit.program import Program

    net = Program("x", (3,), False, (STEPS["sum"],), "s", "", True)
    size = 2.0**30
    first = Values(points(size, size, -size))
    (found,) = rules.propagate(stages_alone(net), first, Symbols(2, np.array([9.0]), True), (1,))
    assert found.y is None
    for (low, high), value in zip(ends(found.z), (2 * size, 2 * size, -2 * size), strict=True):
        assert low <= value - 256
        assert value + 256 <= high


@pytest.mark.parametrize("leaves", [1, 3])
def test_a_factor_per_element_multiplies_its_own_element(leaves: int) -> None:
    from verify.audit import program
    from verify.audit.lift import stages_alone

    factors, shifts = [3, -5, 0], [1, 2, -7]
    step = program.scaled("s", "x", (3,), integers(factors, (3,)), integers(shifts, (3,)))
    net = program.Program("x", (3,), False, (step,), "s", "")
    values = [4.0, 6.0, 9.0]
    body = np.array(values)[:, None, None] * np.ones((1, 1, leaves))
    x = Form(0, CENTRE, body, np.ones((3, leaves)))
    (found,) = rules.propagate(stages_alone(net), Values(x), Symbols(2, np.full(leaves, 9.0)), (1,))
    low, high = found.z.bounds(-10)
    for i, (f, s, v) in enumerate(zip(factors, shifts, values, strict=True)):
        assert (low[i] <= 2**10 * (f * v + s - abs(f))).all()
        assert (high[i] >= 2**10 * (f * v + s + abs(f))).all()
        assert (high[i] - low[i] <= 2**11 * (abs(f) + 0.01)).all()
