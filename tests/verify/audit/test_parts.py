"""Decisions about signs: exact values lie inside on every part, parts cover their box, false claims are refused."""

import json
from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.verify.audit.exact_semantics import correspondences, exact_values, read
from tests.verify.audit.known_bounds import known_bounds
from tests.verify.audit.test_backward import KINDS, inside, seeds
from verify.audit import Verdict
from verify.audit.backward import Backward
from verify.audit.certificate import MAX_DECISIONS, Decision, Multiplier, Part, walk
from verify.audit.exact import Refuted
from verify.audit.grid import InputGrid
from verify.audit.lift import stages_of_pair
from verify.audit.parts import bounds_of_parts
from verify.audit.program import Malformed
from verify.audit.transposed import Pair

UNIT = ((Fraction(0), Fraction(1)), (Fraction(-1, 3), Fraction(1, 3)))
WITH_RELU = [kind for kind in KINDS if kind != "max_pool"]


class Case:
    """A random pair of networks on a box, bounded by the auditor's own rules."""

    def __init__(self, attacks: ModuleType, kind: str, rng: np.random.Generator) -> None:
        original, compact, lift = attacks.pair(kind, rng)
        self.a, self.b, self.rng = read(original), read(compact), rng
        self.stages = stages_of_pair(self.a, self.b, correspondences(lift))
        self.count = self.a.size_of(self.a.input)
        low = [Fraction(int(v), 64) for v in rng.integers(-64, 64, self.count)]
        self.box = tuple((v, v + Fraction(int(rng.integers(1, 64)), 64)) for v in low)
        self.pair = Pair(self.stages, self.count)
        self.x = InputGrid(self.box).form([self.box])
        self.known = known_bounds(self.stages, self.x)
        Backward(self.pair, self.x, self.known).differences(len(self.stages))

    def point(self) -> list[Fraction]:
        shares = self.rng.integers(0, 9, self.count)
        return [p + Fraction(int(s), 8) * (q - p) for (p, q), s in zip(self.box, shares, strict=True)]

    def part(self, values: tuple[list[list[Fraction]], list[list[Fraction]]], outputs: int) -> Part:
        """Random decisions that hold at a point, and random multipliers."""
        arguments = [s.inputs[0] for s in self.stages if s.step.kind == "relu"]
        decisions = []
        for _ in range(int(self.rng.integers(1, 6))):
            n, compact = int(self.rng.choice(arguments)), bool(self.rng.integers(0, 2))
            own = values[compact][n]
            element = int(self.rng.integers(0, len(own)))
            decisions.append(Decision(compact, n, element, own[element] > 0 or (own[element] == 0 and compact)))
        chosen = {(bool(s), int(o), int(d)) for s, o, d in self.rng.integers(0, [2, outputs, len(decisions)], (4, 3))}
        multipliers = [
            Multiplier(*place, int(self.rng.integers(1, 2**20)), int(self.rng.integers(-30, -10)))
            for place in sorted(chosen)
        ]
        return Part(self.box, tuple(decisions), tuple(multipliers))


def check_parts(attacks: ModuleType, kind: str, seed: int) -> None:
    case = Case(attacks, kind, np.random.default_rng(seed))
    points = [case.point() for _ in range(3)]
    values = [(exact_values(case.a, p), exact_values(case.b, p)) for p in points]
    parts = [case.part(v, len(v[0][-1])) for v in values]
    low, high, exponent = bounds_of_parts(case.pair, case.x, case.known, parts, len(case.stages))
    for leaf, (z, y) in enumerate(values):
        inside(low[:, leaf], high[:, leaf], exponent, [p - q for p, q in zip(z[-1], y[-1], strict=True)])


@pytest.mark.parametrize("kind", WITH_RELU)
@settings(deadline=None, max_examples=4)
@given(seed=seeds)
def test_exact_values_lie_inside_on_every_part(attacks: ModuleType, kind: str, seed: int) -> None:
    check_parts(attacks, kind, seed)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(kind=st.sampled_from(WITH_RELU), seed=seeds)
def test_exact_values_lie_inside_on_parts_of_many_pairs(attacks: ModuleType, kind: str, seed: int) -> None:
    check_parts(attacks, kind, seed)


@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_parts_without_decisions_have_the_bounds_of_the_box(attacks: ModuleType, seed: int) -> None:
    case = Case(attacks, "dense", np.random.default_rng(seed))
    low, high, exponent = bounds_of_parts(case.pair, case.x, case.known, [Part(case.box)] * 2, len(case.stages))
    whole = Backward(case.pair, case.x, case.known).from_input(len(case.stages), case.known[-1])
    for ours, theirs in ((low, whole[0]), (high, whole[1])):
        assert (ours * 2.0**exponent == theirs * 2.0 ** whole[2]).all()


@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_parts_without_inputs_are_told_from_others(attacks: ModuleType, seed: int) -> None:
    """One element with each sign, of which one contradicts what is known, or neither does."""
    case = Case(attacks, "dense", np.random.default_rng(seed))
    argument = next(s.inputs[0] for s in case.stages if s.step.kind == "relu")
    low, high = case.known[argument].z
    for element in range(len(low)):
        parts = [Part(case.box, (Decision(False, argument, element, sign),)) for sign in (True, False)]
        below, above, _ = bounds_of_parts(case.pair, case.x, case.known, parts, len(case.stages))
        for leaf, possible in enumerate((high[element, 0] >= 0, low[element, 0] <= 0)):
            if not possible:
                assert not below[:, leaf].any()
                assert not above[:, leaf].any()
            else:
                assert (below[:, leaf] <= above[:, leaf]).all()


@pytest.mark.parametrize(
    "decision", [Decision(False, 0, 0, True), Decision(True, 99, 0, True), Decision(False, 1, 10**6, False)]
)
def test_a_decision_about_nothing_is_refused(attacks: ModuleType, decision: Decision) -> None:
    case = Case(attacks, "dense", np.random.default_rng(0))
    with pytest.raises(Refuted, match="not there"):
        bounds_of_parts(case.pair, case.x, case.known, [Part(case.box, (decision,))], len(case.stages))


# trees


def test_both_signs_of_every_decision_are_there() -> None:
    parts = list(walk("0:1p-1 z2/3 . y4/0 .+1@0=3p-4;-0@1=5p-9 . .", UNIT))
    assert [tuple((d.compact, d.position, d.element, d.positive) for d in p.decisions) for p in parts] == [
        ((False, 2, 3, False),),
        ((False, 2, 3, True), (True, 4, 0, False)),
        ((False, 2, 3, True), (True, 4, 0, True)),
        (),
    ]
    assert parts[0].box is parts[1].box is parts[2].box
    assert parts[1].multipliers == (Multiplier(False, 1, 0, 3, -4), Multiplier(True, 0, 1, 5, -9))
    assert parts[0].box == ((Fraction(0), Fraction(1, 2)), UNIT[1])


@pytest.mark.parametrize(
    "tree",
    [
        "z2/3 .", "z2/3 . . .", "z0/0 . .", "z/0 . .", "x2/3 . .", "z2/03 . .", "z2/3/4 . .", "z-2/3 . .", "z2/3",
        "z2 . .",
        "z2/3 0:1p-1 . . .", "z2/3 z2/3 . 0:1p-1 . . .", ".+0@0=1p0", "z2/3 .+0@1=1p0 .", "z2/3 .+0@0=0p0 .",
        "z2/3 .+0@0=-1p0 .", "z2/3 .0@0=1p0 .", "z2/3 .+0@0=1p0;+0@0=3p0 .", "z2/3 .+0@0=1p0; .", "z2/3 .; .",
        "z2/3 .+0@0=1p99999 .", "z2/3 .+0@0=1 .", "z2/3\t. .", "Z2/3 . .", "z2/3 .+0@0=1p0,-0@0=1p0 .",
    ],
)  # fmt: skip
def test_ill_formed_decisions_are_refused(tree: str) -> None:
    with pytest.raises(Malformed):
        list(walk(tree, UNIT))


def test_there_is_a_limit_to_decisions() -> None:
    def tree(depth: int) -> str:
        return " ".join(["z1/0"] * depth + ["."] * (depth + 1))

    assert sum(1 for _ in walk(tree(MAX_DECISIONS), UNIT)) == MAX_DECISIONS + 1
    with pytest.raises(Malformed, match="decisions"):
        list(walk(tree(MAX_DECISIONS + 1), UNIT))


# certificates


def decided_tree(rng: np.random.Generator, outputs: int, depth: int) -> str:
    """A random tree of decisions about the first two layers, with random multipliers."""
    if not depth:
        places = {(int(o), int(d)) for o, d in rng.integers(0, [outputs, 3], (3, 2))}
        return "." + ";".join(f"{rng.choice(['+', '-'])}{o}@{d}={rng.integers(1, 99)}p-9" for o, d in sorted(places))
    halves = " ".join(decided_tree(rng, outputs, depth - 1) for _ in range(2))
    return f"{rng.choice(['z', 'y'])}{rng.choice([1, 2, 3])}/{rng.integers(0, 4)} {halves}"


def test_false_claims_with_decisions_are_never_accepted(attacks: ModuleType, bases: list) -> None:
    rng = np.random.default_rng(1)
    verdicts = []
    for base in bases[8:]:
        top, _, _ = attacks.attained(base, rng)
        outputs = json.loads(base.certificate.read_text())["claim"]["outputs"]
        for share in (Fraction(1, 2**40), Fraction(1, 1000), Fraction(1, 3)):
            data = json.loads(base.certificate.read_text())
            tree = decided_tree(rng, outputs, 3)
            data["claim"]["epsilon"] = attacks.show(max(top * (1 - share), Fraction(0)))
            data["evidence"] = [{"leaves": 8, "tree": tree} for _ in data["evidence"]]
            path = base.folder / "decided.json"
            path.write_text(attacks.reseal(json.dumps(data)))
            verdicts.append(base.judge(path).verdict)
    assert len(verdicts) >= 6
    assert Verdict.ACCEPT not in verdicts
    assert Verdict.REJECT in verdicts


def test_a_rule_without_decisions_refuses_them(bases: list, attacks: ModuleType) -> None:
    for base in (bases[0], bases[7]):
        data = json.loads(base.certificate.read_text())
        data["evidence"] = [{"leaves": 2, "tree": "z1/0 . ."} for _ in data["evidence"]]
        path = base.folder / "decided.json"
        path.write_text(attacks.reseal(json.dumps(data)))
        report = base.judge(path)
        assert report.verdict is Verdict.REJECT
        assert "does not know decisions" in report.reason
