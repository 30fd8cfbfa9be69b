"""Branches of the auditor that ordinary certificates do not take. Coverage of branches is measured with

coverage run --branch --source=verify.audit -m pytest tests/verify/audit tests/verify/certificate
coverage report -m
"""

import hashlib
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from verify.audit import Verdict, audit, form, rounding, rules
from verify.audit.exact import Refuted
from verify.audit.form import CENTRE, Form
from verify.audit.grid import InputGrid
from verify.audit.lift import Correspondence, stages_alone, stages_of_pair
from verify.audit.program import Program, Step, from_bits, integers, linear

GOLDEN = Path(__file__).parent / "golden"


def rows_of_a_sequence(dtype: str = "float32") -> tuple[Program, np.ndarray, np.ndarray]:
    """The same matrix applied to each of three rows: results come as (row, output), products as (output, row)."""
    rng = np.random.default_rng(0)
    weight, bias = (rng.integers(-8, 9, shape).astype(np.float32) for shape in ((2, 4), (2,)))
    numbers = (from_bits(a.tobytes(), "float32").reshape(*a.shape) for a in (weight, bias))
    return Program("x", (3, 4), False, (linear("y", "x", (3, 4), *numbers),), "y", "", True), weight, bias


@pytest.mark.parametrize("float32", [False, True])
def test_results_are_put_in_their_place(float32: bool) -> None:
    program, weight, bias = rows_of_a_sequence()
    x = np.arange(12, dtype=np.float64) - 5
    box = tuple((Fraction(int(v)),) * 2 for v in x)
    first = rules.Values(InputGrid(box).form([box]))
    symbols = rules.Symbols(2, np.array([0.0]), float32)
    (found,) = rules.propagate(stages_alone(program), first, symbols, (1,))
    low, high = found.z.bounds(-30)
    expected = (x.reshape(3, 4) @ weight.T + bias).ravel() * 2.0**30
    assert (low[:, 0] <= expected).all()
    assert (expected <= high[:, 0]).all()
    lost = rounding.of_affine(stages_alone(program)[0].own, first.z)[0]  # type: ignore[arg-type]
    size = (np.abs(x).reshape(3, 4) @ np.abs(weight).T).ravel()
    assert (lost[0][:, 0] * 2.0 ** lost[1] >= 7 * 2.0**-24 * size).all()
    assert float32 or (high - low <= 2.0**20).all()  # a thousandth, from the units of the result


def test_pairs_of_sequences_are_compared_row_by_row() -> None:
    program, _, _ = rows_of_a_sequence()
    (stage,) = stages_of_pair(program, program, ())
    assert stage.aligned
    box = tuple((Fraction(-1), Fraction(1)) for _ in range(12))
    x = InputGrid(box).form([box])
    zero = Form(0, CENTRE, np.zeros((12, 1, 1)), np.zeros((12, 1)))
    (found,) = rules.propagate([stage], rules.Values(x, x, zero), rules.Symbols(2, np.array([9.0])), (1,))
    assert found.d is not None
    assert not found.d.size.any()


def affine(taps: list[list[list[int]]], rows: int = 1) -> Program:
    groups, positions, length = np.array(taps).shape
    weight = integers([1] * (groups * rows * length), (groups, rows, length))
    shape = (groups * rows * positions,)
    step = Step("y", "affine", ("x",), shape, np.array(taps), weight)
    return Program("x", (3,), False, (step,), "y", "")


def test_a_map_with_other_inputs_has_no_rule_for_d() -> None:
    same, other = affine([[[0, 1]]]), affine([[[0, 2]]])
    assert stages_of_pair(same, same, ())[0].aligned
    assert not stages_of_pair(same, other, ())[0].aligned


def test_a_map_whose_results_are_mixed_up_has_no_rule_for_d() -> None:
    """Two rows at two positions: an element per (row, position), which must keep its row and its position."""
    net = affine([[[0, 1], [1, 2]]], rows=2)
    assert stages_of_pair(net, net, ())[0].aligned
    swapped_rows = Correspondence("y", "y", 0, (2, 3, 0, 1))
    assert stages_of_pair(net, net, (swapped_rows,))[0].aligned
    mixed = Correspondence("y", "y", 0, (0, 3, 2, 1))
    assert not stages_of_pair(net, net, (mixed,))[0].aligned


def test_networks_with_other_steps_are_no_pair() -> None:
    relu = Program("x", (3,), False, (Step("y", "relu", ("x",), (3,)),), "y", "")
    with pytest.raises(Refuted, match="different steps"):
        stages_of_pair(relu, affine([[[0, 1]]]), ())


def test_a_value_without_counterpart_costs_the_rule_and_nothing_else() -> None:
    """The hidden values differ in size and the lift is silent: D is the plain difference of the outputs."""

    def net(width: int) -> Program:
        first = Step("h", "affine", ("x",), (width,), np.array([[[0, 1, 2]]]), integers([1] * 3 * width, (1, width, 3)))
        last = Step("y", "affine", ("h",), (1,), np.arange(width)[None, None], integers([1] * width, (1, 1, width)))
        return Program("x", (3,), False, (first, last), "y", "")

    stages = stages_of_pair(net(4), net(3), ())
    assert [s.aligned for s in stages] == [False, False]
    box = tuple((Fraction(0), Fraction(1)) for _ in range(3))
    x = InputGrid(box).form([box])
    zero = Form(0, CENTRE, np.zeros((3, 1, 1)), np.zeros((3, 1)))
    (found,) = rules.propagate(stages, rules.Values(x, x, zero), rules.Symbols(2, np.array([9.0])), (2,))
    assert found.d is not None
    low, high = found.d.bounds(0)
    assert -1 <= low[0, 0] <= 0  # 4 s - 3 s for s = sum of x in [0, 3], rounded outward
    assert 3 <= high[0, 0] <= 4


def resealed(name: str, path: Path, **changes: object) -> Path:
    data = json.loads((GOLDEN / f"{name}.json").read_text())
    del data["seal"]
    data.update(changes)
    text = json.dumps(data)[:-1] + ",\n"
    path.write_text(f'{text} "seal": "{hashlib.sha256(text.encode()).hexdigest()}"\n}}\n')
    return path


def test_who_made_it_is_read_and_not_believed(tmp_path: Path) -> None:
    files = GOLDEN / "original.onnx", GOLDEN / "compact.onnx"
    good = resealed("v0_real", tmp_path / "a.json", prover={"name": "someone"})
    assert audit(good, *files).verdict is Verdict.ACCEPT
    bad = resealed("v0_real", tmp_path / "b.json", prover={"name": 7})
    assert audit(bad, *files).verdict is Verdict.MALFORMED


@pytest.mark.parametrize("name", ["v0_real", "v0_float32"])
def test_leaves_are_halved_until_they_fit_the_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = GOLDEN / "original.onnx", GOLDEN / "compact.onnx"
    whole = audit(GOLDEN / f"{name}.json", *files)
    seen = set()
    for kilobytes in (0, 1, 2, 4, 8, 16, 32, 64, 128):
        monkeypatch.setattr(form, "FORM_BYTES", 1000 * kilobytes)
        found = audit(GOLDEN / f"{name}.json", *files)
        seen.add(found.verdict)
        if found.verdict is Verdict.ACCEPT:
            assert found.leaves == whole.leaves
    assert seen == {Verdict.ACCEPT, Verdict.RESOURCE}
