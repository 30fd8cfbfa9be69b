"""Float32 claims: executions in every order stay inside the enclosures, and what the bounds do not cover is refused."""

import json
from collections.abc import Callable
from fractions import Fraction
from math import fsum
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.audit import Verdict, audit, rounding, rules
from verify.audit.backward import Backward
from verify.audit.exact import Refuted, Resource
from verify.audit.form import CENTRE, Form
from verify.audit.grid import InputGrid
from verify.audit.lift import Correspondence, stages_of_pair
from verify.audit.onnx_file import read_onnx
from verify.audit.program import Program, Step, Unsupported
from verify.audit.transposed import Pair
from verify.certificate.issue import issue_certificate
from verify.formal.deviation import verify_deviation
from verify.network.graph import Network, build
from verify.network.write_onnx import onnx_bytes, write_onnx
from verify.spec.box import Box

F = np.float32
Adder = Callable[[list[np.float32], list[np.float32], np.float32], np.float32]


def in_order(w: list[np.float32], x: list[np.float32], b: np.float32) -> np.float32:
    total = F(0)
    for p, q in zip(w, x, strict=True):
        total = F(total + F(p * q))
    return F(total + b)


def reversed_order(w: list[np.float32], x: list[np.float32], b: np.float32) -> np.float32:
    return in_order(w[::-1], x[::-1], b)


def bias_first(w: list[np.float32], x: list[np.float32], b: np.float32) -> np.float32:
    total = b
    for p, q in zip(w, x, strict=True):
        total = F(total + F(p * q))
    return total


def by_size(w: list[np.float32], x: list[np.float32], b: np.float32) -> np.float32:
    total = F(0)
    for term in sorted([*(F(p * q) for p, q in zip(w, x, strict=True)), b], key=lambda v: -abs(float(v))):
        total = F(total + term)
    return total


def in_pairs(w: list[np.float32], x: list[np.float32], b: np.float32) -> np.float32:
    terms = [*(F(p * q) for p, q in zip(w, x, strict=True)), b]
    while len(terms) > 1:
        terms = [F(terms[i] + terms[i + 1]) if i + 1 < len(terms) else terms[i] for i in range(0, len(terms), 2)]
    return terms[0]


def fused(w: list[np.float32], x: list[np.float32], b: np.float32) -> np.float32:
    """A chain of fused multiply-adds: the product is exact in float64, and one rounding to float32 remains."""
    total = b
    for p, q in zip(w, x, strict=True):
        total = F(fsum([float(p) * float(q), float(total)]))
    return total


def random_tree(w: list[np.float32], x: list[np.float32], b: np.float32) -> np.float32:
    rng = np.random.default_rng(len(w))
    terms = [*(F(p * q) for p, q in zip(w, x, strict=True)), b]
    while len(terms) > 1:
        i, j = sorted(rng.choice(len(terms), 2, replace=False).tolist())
        right, left = terms.pop(j), terms.pop(i)
        terms.append(F(left + right))
    return terms[0]


ORDERS: tuple[Adder, ...] = (in_order, reversed_order, bias_first, by_size, in_pairs, fused, random_tree)


def execute(program: Program, x: list[np.float32], add: Adder) -> list[np.float32]:
    values = {program.input: x}
    for step in program.steps:
        values[step.name] = run_step(step, [values[n] for n in step.inputs], add)
    return values[program.output]


def run_step(step: Step, inputs: list[list[np.float32]], add: Adder) -> list[np.float32]:
    if step.kind == "relu":
        return [max(v, F(0)) for v in inputs[0]]
    if step.kind == "sum":
        signs = [F(s) for s in step.signs]
        return [F(signs[0] * a + signs[1] * b) for a, b in zip(*inputs, strict=True)]
    if step.kind == "max":
        return [max(inputs[0][i] for i in row if i >= 0) for row in step.taps.tolist()]
    if step.kind == "gather":
        joined = [v for one in inputs for v in one]
        fill = F(0) if step.bias is None else F(np.ldexp(step.bias.mantissa, step.bias.exponent).ravel()[0])
        return [joined[i] if i >= 0 else fill for i in step.taps.tolist()]
    assert step.weight is not None
    weights = np.ldexp(step.weight.mantissa, step.weight.exponent).astype(F)  # a mean: the rounded reciprocal
    flat = []
    count = len(step.bias.mantissa) if step.bias is not None else 0
    biases = [F(0)] * 10**6 if step.bias is None else np.ldexp(step.bias.mantissa, step.bias.exponent).astype(F)
    back = np.argsort(step.place) if step.place is not None else None
    for group, taps in zip(weights, step.taps.tolist(), strict=True):
        for row in group:
            for at in taps:
                index = len(flat) if back is None else int(back[len(flat)])
                bias = biases[index] if count else F(0)
                flat.append(add(list(row), [inputs[0][i] if i >= 0 else F(0) for i in at], F(bias)))
    return [flat[i] for i in step.place] if step.place is not None else flat


def read(network: Network) -> Program:
    return read_onnx(onnx_bytes(network))


def check_executions(attacks: ModuleType, kind: str, seed: int, symbols: int) -> None:
    rng = np.random.default_rng(seed)
    original, compact, lift = attacks.pair(kind, rng)
    a, b = read(original), read(compact)
    rounding.check_program(a)
    stages = stages_of_pair(a, b, tuple(Correspondence(c.original, c.compact, c.axis, c.kept) for c in lift))
    count = a.size_of(a.input)
    low = rng.normal(size=count).astype(F)
    high = np.nextafter(low + F(abs(rng.normal())) * F(rng.integers(0, 2)), F(np.inf))
    box = tuple((Fraction(float(p)), Fraction(float(q))) for p, q in zip(low, high, strict=True))
    x = InputGrid(box).form([box])
    zero = Form(0, CENTRE, np.zeros((count, 1, 1)), np.zeros((count, 1)))
    names = [a.input, *(s.name for s in a.steps)]
    end = (names.index(a.output),)
    left = np.full(1, float(symbols))
    kept, known = [np.arange(count), *(s.kept for s in stages)], []
    start = rules.Values(x, x, zero), rules.Symbols(2, left, float32=True), end
    (last,) = rules.propagate(stages, *start, lambda v: known.append(rules.bounds_of(v, kept[len(known)])))
    low_d, high_d, exponent = Backward(Pair(stages, count, float32=True), x, known).differences(end[0])
    limits = [[int(v) * Fraction(2) ** exponent for v in side[:, 0].tolist()] for side in (low_d, high_d)]
    assert last.y is not None
    assert last.d is not None
    for _ in range(3):
        inside = [F(v) for v in np.clip(rng.uniform(low, high).astype(F), low, high)]
        outputs = [(execute(a, inside, add), execute(b, inside, add)) for add in ORDERS]
        for first, _ in outputs:
            for _, second in outputs:
                assert within(last.z, first)
                assert within(last.y, second)
                apart = [Fraction(float(p)) - Fraction(float(q)) for p, q in zip(first, second, strict=True)]
                assert within(last.d, apart)
                assert all(p <= v <= q for p, v, q in zip(limits[0], apart, limits[1], strict=True))


def within(form: Form, values: list) -> bool:
    centre, radius, unit = form.body[:, 0, 0], form.radius[:, 0], Fraction(2) ** form.exponent
    exact = [v if isinstance(v, Fraction) else Fraction(float(v)) for v in values]
    pairs = zip(exact, centre.tolist(), radius.tolist(), strict=True)
    return all(abs(v - unit * int(c)) <= unit * int(r) for v, c, r in pairs)


KINDS = ["dense", "residual", "conv", "max_pool", "average_pool", "shortcut"]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 2**32 - 1), symbols=st.sampled_from([10**6, 20, 0]))
def test_executions_in_any_order_stay_inside(attacks: ModuleType, kind: str, seed: int, symbols: int) -> None:
    check_executions(attacks, kind, seed, symbols)


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32 - 1), symbols=st.sampled_from([10**6, 20, 0]))
def test_executions_of_many_pairs_stay_inside(attacks: ModuleType, kind: str, seed: int, symbols: int) -> None:
    check_executions(attacks, kind, seed, symbols)


def certify(folder: Path, original: Network, compact: Network, box: Box, arithmetic: str) -> object:
    paths = folder / "original.onnx", folder / "compact.onnx"
    for network, path in zip((original, compact), paths, strict=True):
        write_onnx(network, path)
    found = verify_deviation(original, compact, [box], timeout=5, floor=1e-3)
    return issue_certificate(
        folder / "c.json", found, boxes=[box], original=paths[0], compact=paths[1], arithmetic=arithmetic
    )


def dense(weight: list[list[float]], bias: list[float], dtype: str = "float32") -> Network:
    parameters = {"w": np.array(weight, dtype), "b": np.array(bias, dtype)}
    return build("x", (len(weight[0]),), [("y", "linear", ("x",), {"weight": "w", "bias": "b"}, {})], "y", parameters)


def test_an_order_detecting_pair_is_not_certified_as_equal(tmp_path: Path) -> None:
    """2^24 x + y - 2^24 x is y in real numbers, and 0 in one order of float32: a twin that outputs y deviates by 1."""
    original, compact = dense([[2.0**24, 1.0, -(2.0**24)]], [0.0]), dense([[0.0, 1.0, 0.0]], [0.0])
    box = Box.from_floats([1.0] * 3, [1.0] * 3)
    program = read(original)
    shown = {float(execute(program, [F(1)] * 3, add)[0]) for add in ORDERS}
    assert {0.0, 1.0} <= shown
    issued = certify(tmp_path, original, compact, box, "float32")
    assert isinstance(issued, tuple)
    assert issued[0] >= 1
    real = certify(tmp_path, original, compact, box, "real")
    assert isinstance(real, tuple)
    assert real[0] <= Fraction(1, 10**6)


def test_a_cancelling_twin_is_not_certified_as_equal(tmp_path: Path) -> None:
    """(x + w) - w through two layers: real arithmetic sees x, float32 loses its digits."""
    big = 2.0**20
    parameters = {"w": np.ones((1, 1), F), "b": np.array([big], F), "c": np.array([-big], F)}
    steps = [
        ("h", "linear", ("x",), {"weight": "w", "bias": "b"}, {}),
        ("y", "linear", ("h",), {"weight": "w", "bias": "c"}, {}),
    ]
    original = build("x", (1,), steps, "y", parameters)
    steps = [("h", "linear", ("x",), {"weight": "w", "bias": "z"}, {}), ("y", "linear", ("h",), {"weight": "w"}, {})]
    compact = build("x", (1,), steps, "y", {"w": parameters["w"], "z": np.zeros(1, F)})
    issued = certify(tmp_path, original, compact, Box.from_floats([0.01], [0.02]), "float32")
    assert isinstance(issued, tuple)
    lost = abs(F(F(F(0.015) + F(big)) - F(big)) - F(0.015))
    assert issued[0] >= Fraction(float(lost))


def test_a_real_claim_turned_into_a_float32_claim_is_proved_anew(
    attacks: ModuleType, bases: list, tmp_path: Path
) -> None:
    base = bases[0]
    report = audit(base.certificate, base.folder / "original.onnx", base.folder / "compact.onnx")
    assert report.verdict is Verdict.ACCEPT
    assert report.bound is not None

    def turned(epsilon: Fraction) -> Path:
        data = json.loads(base.certificate.read_text())
        del data["seal"]
        data["claim"].update(arithmetic="float32", epsilon=f"{epsilon.numerator}/{epsilon.denominator}")
        path = tmp_path / "turned.json"
        path.write_text(attacks.reseal(json.dumps(data, indent=1)))
        return path

    files = base.folder / "original.onnx", base.folder / "compact.onnx"
    assert audit(turned(report.bound), *files).verdict is Verdict.REJECT
    wide = audit(turned(report.bound * 2 + 1), *files)
    assert wide.verdict is Verdict.ACCEPT, wide.reason
    assert wide.bound is not None
    assert wide.bound > report.bound
    assert "float32" in wide.claim_words
    assert "flush to zero" in wide.limits


def test_what_the_bounds_do_not_describe_is_refused(attacks: ModuleType, tmp_path: Path) -> None:
    original, _, _ = attacks.pair("batch_norm", np.random.default_rng(0))
    with pytest.raises(Unsupported, match="batch norm"):
        rounding.check_program(read(original))
    double = dense([[1.0]], [0.0], "float64")
    with pytest.raises(Unsupported, match="float32"):
        rounding.check_program(read(double))


def test_sums_that_may_overflow_or_are_too_long_are_not_proved() -> None:
    with pytest.raises(Refuted, match="overflow"):
        rounding._relative([(np.full((1, 1), 2.0**40), 80)], 3)
    with pytest.raises(Resource, match="too long"):
        rounding._relative([(np.ones((1, 1)), 0)], 2**22 + 1)


@given(length=st.integers(1, 2**22))
def test_the_factor_is_not_below_gamma(length: int) -> None:
    ((values, exponent),) = rounding._relative([(np.ones((1, 1)), 0)], length)
    u = Fraction(1, 2**24)
    assert int(values[0, 0]) * Fraction(2) ** exponent >= length * u / (1 - length * u)
