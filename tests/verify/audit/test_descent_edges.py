"""Descents and decisions where ordinary networks do not lead: fills, other orders, large maps, missing counterparts."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.verify.audit.exact_semantics import exact_values
from tests.verify.audit.known_bounds import known_bounds
from tests.verify.audit.test_backward import inside
from tests.verify.audit.test_every_branch import rows_of_a_sequence
from tests.verify.audit.test_parts import check_parts
from verify.audit import Verdict, backward, check, parts, transposed
from verify.audit.backward import Backward
from verify.audit.certificate import Decision, Multiplier, Part, read_certificate
from verify.audit.descent import Descent, Planes, _size, columns, three
from verify.audit.exact import Refuted, Resource
from verify.audit.grid import InputGrid
from verify.audit.lift import Affine, Correspondence, stages_of_pair
from verify.audit.linear import linear_map
from verify.audit.parts import bounds_of_parts
from verify.audit.planes import Inconsistent
from verify.audit.program import Program, Step, integers
from verify.audit.rules import Bounds
from verify.audit.transposed import Pair
from verify.audit.upper import total

GOLDEN = Path(__file__).parent / "golden"
THREE = Step("h", "affine", ("x",), (3,), np.array([[[0, 1, 2]]]), integers([3, -2, 5, 1, 4, -3, 2, 2, -7], (1, 3, 3)))
LAST = Step("y", "affine", ("a",), (1,), np.array([[[0, 1, 2]]]), integers([1, -1, 2], (1, 1, 3)))


def program(*steps: Step) -> Program:
    return Program("x", (3,), False, steps, steps[-1].name, "")


def padded(fill: int) -> Program:
    """A ReLU layer, of whose results one is put aside for a constant."""
    relu = Step("r", "relu", ("h",), (3,))
    moved = Step("a", "gather", ("r",), (3,), np.array([2, -1, 0]), bias=integers([fill], (1,)))
    return program(THREE, relu, moved, LAST)


def plain(width: int = 3) -> Program:
    weight = integers([3, -2, 5, 1, 4, -3, 2, 2, -7, 1, 1, 1][: 3 * width], (1, width, 3))
    first = Step("h", "affine", ("x",), (width,), np.array([[[0, 1, 2]]]), weight)
    last = Step(
        "y", "affine", ("a",), (1,), np.arange(width)[None, None], integers([1, -1, 2, 1][:width], (1, 1, width))
    )
    return program(first, Step("a", "relu", ("h",), (width,)), last)


class Known:
    """A pair of programs on a box: what the auditor knows of every value."""

    def __init__(
        self, a: Program, b: Program, radius: Fraction = Fraction(1, 4), lift: tuple[Correspondence, ...] = ()
    ) -> None:
        self.programs, self.stages = (a, b), stages_of_pair(a, b, lift)
        self.box = tuple((Fraction(v, 8) - radius, Fraction(v, 8) + radius) for v in (1, -2, 3))
        self.pair, self.x = Pair(self.stages, 3), InputGrid(self.box).form([self.box])
        self.known = known_bounds(self.stages, self.x)

    def check(self) -> float:
        """The bounds of the outputs hold at some points; how wide they are."""
        low, high, exponent = Backward(self.pair, self.x, self.known).differences(len(self.stages))
        rng = np.random.default_rng(0)
        for _ in range(20):
            shares = rng.integers(0, 3, 3)
            point = [p + Fraction(int(s), 2) * (q - p) for (p, q), s in zip(self.box, shares, strict=True)]
            z, y = (exact_values(net, point)[-1] for net in self.programs)
            inside(low[:, 0], high[:, 0], exponent, [p - q for p, q in zip(z, y, strict=True)])
        return float((high - low).max() * 2.0**exponent)


def test_constants_of_moved_values_count_in_both_networks() -> None:
    assert Known(padded(5), padded(5)).check() < 1e-6
    assert Known(padded(5), padded(-3)).check() < 1e-6  # the difference is known: -8
    other = Step("y", "affine", ("a",), (1,), LAST.taps, integers([1, 7, 2], (1, 1, 3)))
    Known(padded(5), program(*padded(5).steps[:3], other)).check()


def test_maps_that_are_too_large_to_transpose_end_a_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Known(plain(), padded_like(plain())).check()
    monkeypatch.setattr(transposed, "LARGEST_MAP", 0)
    assert Known(plain(), padded_like(plain())).check() >= wide
    assert transposed.transposed(None, 1, 1) is None


def padded_like(net: Program) -> Program:
    """The same network with another last layer."""
    last = Step("y", "affine", ("a",), (1,), LAST.taps, integers([2, -1, 3], (1, 1, 3)))
    return program(*net.steps[:-1], last)


def test_a_transposed_map_knows_where_results_are_put() -> None:
    net, _, _ = rows_of_a_sequence()
    (stage,) = stages_of_pair(net, net, ())
    assert stage.own is not None
    assert stage.own.place is not None
    found = transposed.transposed(stage.own, 6, 12)
    assert found is not None
    unit = Fraction(2) ** found.exponent
    matrix = found.both[0, :12] * 2.0**20 + found.both[0, 12:]
    for i in range(12):
        point = [Fraction(int(i == j)) for j in range(12)]
        zero = exact_values(net, [Fraction(0)] * 12)[-1]
        expected = [v - w for v, w in zip(exact_values(net, point)[-1], zero, strict=True)]
        assert [int(v) * unit for v in matrix[i]] == expected


def test_a_map_that_reads_one_value_often_may_leave_the_exact_range() -> None:
    for count, fits in ((100, True), (2**13, False)):
        taps = np.zeros((1, 1, count), dtype=np.int64)
        linear = linear_map(np.full((1, 1, count), 2.0**40 - 1), np.zeros((1, 1, count)), 0, taps, 1)
        affine = Affine(linear, None, None, None, 0)
        if fits:
            assert transposed.transposed(affine, 1, 1) is not None
        else:
            with pytest.raises(Resource, match="exact range"):
                transposed.transposed(affine, 1, 1)


def test_what_is_not_there_has_no_bounds() -> None:
    """Coefficients, sizes, differences and decisions of values that have no bounds end in an error."""
    ends = np.zeros((1, 1)), np.ones((1, 1))
    alone = Bounds(0, ends)
    ones = columns(0, np.ones((1, 1, 1)))
    with pytest.raises(Inconsistent):
        Descent._ends(None, alone, None, ones, None)  # type: ignore[arg-type]
    with pytest.raises(Inconsistent):
        _size(None, 0)
    for b in (alone, Bounds(0, ends, ends), Bounds(0, ends, None, ends)):
        with pytest.raises(Inconsistent):
            three(b)
    with pytest.raises(Inconsistent):
        parts._cut(alone, 1, [Part((), (Decision(True, 1, 0, True),))])
    with pytest.raises(Inconsistent):
        parts._close(alone, alone, np.zeros(1, dtype=np.int64))
    with pytest.raises(Inconsistent, match="units"):
        parts._either(alone, Bounds(1, ends), np.ones(1, dtype=bool))
    silent = Pair(stages_of_pair(plain(3), plain(4), ()), 3)
    with pytest.raises(Inconsistent):
        silent.kept(1)


def test_decisions_that_contradict_each_other_leave_no_inputs() -> None:
    """z >= 0 and y <= 0 where D = z - y is below 0: only together they are impossible."""

    def ends(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        return np.array([[low, low]]), np.array([[high, high]])

    box = Bounds(0, ends(-1, 1), ends(-1, 1), ends(-2, -1))
    cut = Bounds(0, (np.array([[0.0, -1.0]]), box.z[1]), (box.z[0], np.array([[0.0, 1.0]])), ends(-2, -1))
    empty = np.zeros(2, dtype=bool)
    found = parts._possible(cut, box, np.zeros(1, dtype=np.int64), empty)
    assert empty.tolist() == [True, False]
    assert found.y is not None
    assert found.z[1][0].tolist() == [0.0, 0.0]  # z = y + D <= 1 - 1
    assert found.y[0][0].tolist() == [0.0, 0.0]


def test_decisions_contradict_a_difference_whose_operands_do_not_belong_together() -> None:
    """z = 10 x and y = z + 5 behind layers of other widths: z above zero and y below it have no inputs."""
    nets = []
    for width, shift in ((3, 0), (2, 5)):
        first = Step(
            "h",
            "affine",
            ("x",),
            (width,),
            THREE.taps,
            integers([1, 0, 0, 0, 1, 0, 0, 0, 1][: 3 * width], (1, width, 3)),
        )
        weight = integers([10, *[0] * (width - 1), *[0, 1, *[0] * (width - 2)] * 2], (1, 3, width))
        second = Step("g", "affine", ("h",), (3,), np.arange(width)[None, None], weight, integers([shift, 0, 0], (3,)))
        nets.append(program(first, second, Step("a", "relu", ("g",), (3,)), LAST))
    case = Known(nets[0], nets[1], Fraction(1))
    assert [s.aligned for s in case.stages] == [False, False, True, True]
    signs = [(p, q) for p in (False, True) for q in (False, True)]
    sides = [Part(case.box, (Decision(False, 2, 0, p), Decision(True, 2, 0, q))) for p, q in signs]
    low, high, _ = bounds_of_parts(case.pair, case.x, case.known, sides, len(case.stages))
    assert [not (low[:, i].any() or high[:, i].any()) for i in range(4)] == [False, False, True, False]
    decided_values_hold(case, [(compact, 2, i) for compact in (False, True) for i in range(3)])


def test_decisions_about_values_without_counterpart() -> None:
    """The hidden layers differ in size: both networks' signs can be decided all the same."""
    case = Known(plain(4), plain(3), Fraction(1))
    assert case.stages[0].kept is None
    last = len(case.stages)
    for compact in (False, True):
        sides = [Part(case.box, (Decision(compact, 1, 0, positive),)) for positive in (False, True)]
        low, high, exponent = bounds_of_parts(case.pair, case.x, case.known, sides, last)
        rng = np.random.default_rng(1)
        for _ in range(30):
            point = [
                p + Fraction(int(s), 4) * (q - p) for (p, q), s in zip(case.box, rng.integers(0, 5, 3), strict=True)
            ]
            values = [exact_values(net, point) for net in case.programs]
            positive = int(values[compact][1][0] > 0)
            difference = [p - q for p, q in zip(values[0][-1], values[1][-1], strict=True)]
            inside(low[:, positive], high[:, positive], exponent, difference)


@pytest.mark.parametrize("kind", ["dense", "residual", "shortcut"])
def test_multipliers_of_outputs_that_are_bounded_apart(
    attacks: ModuleType, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every output in a descent of its own gets its own multipliers."""
    monkeypatch.setattr(backward, "COLUMN_BYTES", 1)
    for seed in range(3):
        check_parts(attacks, kind, seed)


def test_a_multiplier_of_another_output_is_no_multiplier_of_this_one() -> None:
    case = Known(plain(), padded_like(plain()), Fraction(1))
    multipliers = (Multiplier(False, 0, 0, 1, -1), Multiplier(True, 7, 0, 1, -1), Multiplier(True, 0, 0, 3, -3))
    found = parts._Multiplied(case.pair, [Part(case.box, (Decision(False, 1, 2, False),), multipliers)])
    pending = found.further(np.array([[0]]))
    (form,) = pending[1].z
    assert form.body[:, :, 0].tolist() == [[0.0, 0.0], [0.0, 0.0], [-(2.0**29), -3 * 2.0**27]]
    assert form.exponent == -30
    assert not found.further(np.array([[1]]))


@pytest.mark.parametrize("compact", [False, True])
def test_multipliers_count_for_the_network_whose_value_is_decided(compact: bool) -> None:
    """One network's arguments are above zero on the whole box, the other's below: a sum with those is false."""
    above, below = (
        program(replace(plain().steps[0], bias=integers([shift] * 3, (3,))), Step("a", "relu", ("h",), (3,)))
        for shift in (20, -20)
    )
    case = Known(*((below, above) if compact else (above, below)))
    decisions = tuple(Decision(compact, 1, i, True) for i in range(3))
    multipliers = tuple(Multiplier(negative, i, i, 3, 0) for negative in (False, True) for i in range(3))
    low, high, exponent = bounds_of_parts(case.pair, case.x, case.known, [Part(case.box, decisions, multipliers)], 2)
    middle = [(p + q) / 2 for p, q in case.box]
    z, y = (exact_values(net, middle)[-1] for net in case.programs)
    inside(low[:, 0], high[:, 0], exponent, [p - q for p, q in zip(z, y, strict=True)])


def test_hard_leaves_of_many_groups_are_proved_together_and_none_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One leaf of every four is hard: they wait until there are four, and the last ones for the end."""
    certificate = read_certificate((GOLDEN / "v0_backward.json").read_bytes())
    nets = [check.read_network([(GOLDEN / f"{name}.onnx").read_bytes()]) for name in ("original", "compact")]
    prover, box = check._Prover(certificate, *nets), certificate.claim.boxes[0]
    monkeypatch.setattr(check, "CHUNK_BYTES", 4 * 8 * prover.widest * (prover.widest + len(box)))
    groups: list[list[int]] = []
    monkeypatch.setattr(prover, "_hard", lambda enclosure: np.zeros(1, dtype=np.int64))
    monkeypatch.setattr(prover, "_compare", lambda enclosure, leaves, place: groups.append(list(leaves)))
    assert prover.prove(iter([Part(box)] * 22), box, "here") == 22
    assert sorted(leaf for group in groups for leaf in group) == list(range(22))
    assert [0, 4, 8, 12] in groups
    assert groups[-1] == [16, 20]
    monkeypatch.setattr(prover, "_prove_some", lambda leaves, *_: leaves[-1:])
    with pytest.raises(Refuted, match="leaf 3: not proved"):
        prover.prove(iter([Part(box)] * 4), box, "here")


def test_decisions_need_outputs_that_belong_together(attacks: ModuleType, bases: list, tmp_path: Path) -> None:
    base = next(b for b in bases[8:] if b.original.output_shape[0] > 1)
    data = json.loads(base.certificate.read_text())
    outputs = list(range(data["claim"]["outputs"]))[::-1]
    data["lift"] = [e for e in data["lift"] if e["original"] != base.original.output]
    data["lift"].append({"original": base.original.output, "compact": base.original.output, "axis": 0, "kept": outputs})
    data["evidence"] = [{"leaves": 2, "tree": "z1/0 . ."} for _ in data["evidence"]]
    data["claim"]["epsilon"] = "1e6"
    path = tmp_path / "c.json"
    path.write_text(attacks.reseal(json.dumps(data)))
    report = base.judge(path)
    assert report.verdict is Verdict.REJECT
    assert "belong together" in report.reason


def decided_values_hold(case: Known, decisions: list[tuple[bool, int, int]]) -> None:
    """On both parts of every decision the bounds of the outputs hold at the points that lie in them."""
    rng, last = np.random.default_rng(2), len(case.stages)
    points = []
    for _ in range(20):
        shares = rng.integers(0, 5, 3)
        points.append([p + Fraction(int(s), 4) * (q - p) for (p, q), s in zip(case.box, shares, strict=True)])
    values = [[exact_values(net, point) for net in case.programs] for point in points]
    for compact, n, element in decisions:
        sides = [Part(case.box, (Decision(compact, n, element, positive),)) for positive in (False, True)]
        low, high, exponent = bounds_of_parts(case.pair, case.x, list(case.known), sides, last)
        for z, y in values:
            decided = (y if compact else z)[n][element]
            for leaf in [0] * (decided <= 0) + [1] * (decided >= 0):
                inside(low[:, leaf], high[:, leaf], exponent, [p - q for p, q in zip(z[-1], y[-1], strict=True)])


def test_any_value_may_be_decided() -> None:
    """Arguments of ReLUs, and what comes out of them; where networks differ and where they do not."""
    case = Known(plain(), padded_like(plain()), Fraction(1))
    decided_values_hold(case, [(compact, n, i) for compact in (False, True) for n in (1, 2) for i in range(3)])


def test_what_is_known_of_an_argument_says_nothing_of_other_results() -> None:
    """Results of a ReLU that the lift relates in another order than its arguments, and a second ReLU on them."""
    order = (1, 0, 2)
    relus = Step("a", "relu", ("h",), (3,)), Step("r", "relu", ("a",), (3,))
    weights = [1, -1, 2]
    nets = [
        program(
            THREE, *relus, Step("y", "affine", ("r",), (1,), LAST.taps, integers([weights[i] for i in o], (1, 1, 3)))
        )
        for o in ((0, 1, 2), order)
    ]
    lift = tuple(Correspondence(name, name, 0, order) for name in ("a", "r"))
    case = Known(nets[0], nets[1], Fraction(1), lift)
    assert [s.aligned for s in case.stages] == [True, False, True, True]
    Known(nets[0], nets[1], Fraction(1), lift).check()
    decided_values_hold(case, [(compact, 1, i) for compact in (False, True) for i in range(3)])


def test_parts_without_inputs_are_noted_and_others_are_not() -> None:
    """Parts together, of which some contradict what is known of z, of y, or of both."""
    case = Known(plain(), padded_like(plain()), Fraction(1, 16))
    low, high = case.known[1].z
    assert (low[:, 0] > 0).any()
    assert (high[:, 0] < 0).any()
    decisions = [(c, i, s) for c in (False, True) for i in range(3) for s in (False, True)]
    sides = [Part(case.box, (Decision(c, 1, i, s),)) for c, i, s in decisions]
    below, above, exponent = bounds_of_parts(case.pair, case.x, list(case.known), sides, len(case.stages))
    point = [(p + q) / 2 for p, q in case.box]
    z, y = (exact_values(net, point) for net in case.programs)
    for leaf, (compact, i, positive) in enumerate(decisions):
        value = (y if compact else z)[1][i]
        ends = case.known[1].y if compact else case.known[1].z
        assert ends is not None
        possible = ends[1][i, 0] >= 0 if positive else ends[0][i, 0] <= 0
        assert possible == ((value >= 0) == positive or bool(ends[0][i, 0] <= 0 <= ends[1][i, 0]))
        if possible and (value >= 0) == positive:
            inside(below[:, leaf], above[:, leaf], exponent, [p - q for p, q in zip(z[-1], y[-1], strict=True)])
        assert possible or not (below[:, leaf].any() or above[:, leaf].any())


def test_decisions_are_about_elements_before_the_output() -> None:
    """The first and the last that there are, and those just beyond."""
    case = Known(plain(), padded_like(plain()))
    last = len(case.stages)
    for n, element, there in ((1, 0, True), (last - 1, 2, True), (0, 0, False), (last, 0, False), (1, 3, False)):
        sides = [Part(case.box, (Decision(False, n, element, True),))]
        if there:
            bounds_of_parts(case.pair, case.x, list(case.known), sides, last)
        else:
            with pytest.raises(Refuted, match="not there"):
                bounds_of_parts(case.pair, case.x, list(case.known), sides, last)


@pytest.mark.parametrize("compact", [False, True])
def test_a_decided_value_is_cut_at_zero_exactly(compact: bool) -> None:
    """Three elements on three parts: one unit beyond zero would already be too much."""
    ends = np.array([[-5.0] * 3, [2.0] * 3, [-9.0] * 3]), np.array([[7.0] * 3, [4.0] * 3, [-6.0] * 3])
    sides = [Part((), (Decision(compact, 1, 0, True), Decision(compact, 1, 1, False))), Part(())]
    sides.append(
        Part((), (Decision(compact, 1, 0, False), Decision(compact, 1, 2, True), Decision(compact, 2, 1, True)))
    )
    found = parts._cut(Bounds(0, ends, ends, ends), 1, sides)
    cut, other = (found.y, found.z) if compact else (found.z, found.y)
    assert cut is not None
    assert cut[0].tolist() == [[0, -5, -5], [2, 2, 2], [-9, -9, 0]]
    assert cut[1].tolist() == [[7, 7, 0], [0, 4, 4], [-6, -6, -6]]
    for same in (other, found.d):
        assert same is not None
        assert all((a == b).all() for a, b in zip(same, ends, strict=True))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_constant_of_many_digits_is_rounded_to_the_safe_side(sign: int) -> None:
    """52 digits are cut to 40: what is lost is paid for whatever the sign of the coefficient, and errors as well."""
    case = Known(plain(), plain())
    for digits, error in ((2**51 + 1, 0), (2**51 + 1, 3), (2**39 + 1, 0), (2**39 + 1, 2**44 + 1)):
        descent = Descent(Planes(case.pair, case.known, {}), case.x, (1, 1), False)
        form = columns(-2, np.full((2, 1, 1), 3.0 * sign))
        descent._bias(form, np.array([float(digits), -float(digits) - 2]), np.full(2, float(error)), 5)
        bound, unit = total(descent.found, descent.zero)
        exact = 8 * (3 * sign * (digits - digits - 2) + 2 * 3 * error)
        above = int(bound[0, 0]) * Fraction(2) ** unit - exact
        assert 0 <= above <= 8 * 6 * Fraction(2) ** 14
