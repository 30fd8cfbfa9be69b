"""Which values belong together, and the matrices of their difference: identities that hold for all z and y, or no rule.

The rule for D of an affine step says z'[kept'] - y' = cross z + V D + bias, whatever z and y are, with D = z[kept] - y.
Weights here are small integers, so that it is tested as an equation.
"""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from verify.audit import program as p
from verify.audit.exact import Index, Real, Refuted
from verify.audit.lift import Affine, Correspondence, Stage, kept_elements, own_map, stages_alone, stages_of_pair
from verify.audit.program import Program, Step, Window

# kept elements


def brute(shape: tuple[int, ...], axis: int, kept: tuple[int, ...]) -> list[int]:
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    pieces = [np.expand_dims(numbers[(slice(None),) * axis + (k,)], axis) for k in kept]
    return np.concatenate(pieces, axis).ravel().tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("shape", "axis", "kept"),
    [
        ((5,), 0, (3, 0, 4)),
        ((2, 3, 4), 0, (1,)),
        ((2, 3, 4), 1, (2, 0)),
        ((2, 3, 4), 2, (0, 3, 1)),
        ((3, 1), 0, (1, 2)),
    ],
)
def test_kept_elements_are_those_at_the_positions(shape: tuple[int, ...], axis: int, kept: tuple[int, ...]) -> None:
    compact = (*shape[:axis], len(kept), *shape[axis + 1 :])
    found = kept_elements(shape, compact, Correspondence("a", "b", axis, kept))
    assert found is not None
    assert found.tolist() == brute(shape, axis, kept)
    for other in ((*compact, 1), compact[:-1], tuple(n + 1 for n in compact), (int(np.prod(compact, dtype=int)) + 1,)):
        with pytest.raises(Refuted, match="does not fit"):
            kept_elements(shape, other, Correspondence("a", "b", axis, kept))


@pytest.mark.parametrize(
    ("axis", "kept"),
    [(2, (0, 1)), (3, (0, 1)), (0, ()), (0, (-1, 0)), (0, (0, 0)), (0, (0, 2)), (0, (2, 3)), (1, (0, 3)), (1, (1, -1))],
)
def test_positions_that_are_not_there_or_repeated_are_refuted(axis: int, kept: tuple[int, ...]) -> None:
    shape = (2, 3)
    compact = (*shape[:axis], len(kept), *shape[axis + 1 :])
    for fitting in (compact, shape, (len(kept), 3), (2, len(kept))):
        with pytest.raises(Refuted, match="does not fit"):
            kept_elements(shape, fitting, Correspondence("a", "b", axis, kept))


def test_values_that_no_one_lists_correspond_element_by_element_or_not_at_all() -> None:
    for compact in ((2, 3), (3, 2), (6,)):
        found = kept_elements((2, 3), compact, None)
        assert found is not None
        assert found.tolist() == list(range(6))
    assert kept_elements((2, 3), (2, 2), None) is None
    assert kept_elements((2, 2), (2, 3), None) is None


# pairs of steps on a value h, of which the compact network keeps some elements


def moved(name: str, size: int) -> Step:
    """A value of its own: elements of the input, in order."""
    return Step(name, "gather", ("x",), (size,), np.arange(size))


def lift(**kept: Any) -> tuple[Correspondence, ...]:
    return tuple(Correspondence(name, name, 0, tuple(k)) for name, k in kept.items())


def stages(a: Step, b: Step, kept: Any, now: Any, inputs: tuple[int, int] = (6, 4)) -> list[Stage]:
    """The stages h and `a` next to h and `b`; `kept` of h and `now` of the result, None where nothing is said."""
    flat = [replace(s, shape=(int(np.prod(s.shape)),)) for s in (a, b)]
    nets = [Program("x", (9,), False, (moved("h", n), s), s.name, "") for n, s in zip(inputs, flat, strict=True)]
    said = {name: k for name, k in (("h", kept), (a.name, now)) if k is not None}
    return stages_of_pair(nets[0], nets[1], lift(**said))


def aligned(*arguments: Any) -> bool:
    return stages(*arguments)[-1].aligned


KEPT = (4, 1, 5, 2)


def step(kind: str, size: int, taps: Any = None, **more: Any) -> Step:
    reads = ("h",) * 2 if kind == "sum" else ("h",)
    return Step("s", kind, reads, (size,), *(() if taps is None else (np.array(taps),)), **more)


def test_a_relu_is_compared_with_the_same_element() -> None:
    a, b = step("relu", 6), step("relu", 4)
    assert aligned(a, b, KEPT, KEPT)
    for other in ((4, 1, 2, 5), (0, 1, 5, 2), (4, 1, 5, 3)):
        assert not aligned(a, b, KEPT, other)
    assert not aligned(a, b, KEPT, None)
    assert not aligned(a, b, None, KEPT)
    assert aligned(a, a, None, None, (6, 6))
    assert not aligned(a, a, None, (1, 0, 2, 3, 4, 5), (6, 6))


def test_a_sum_is_compared_element_by_element_with_the_same_signs() -> None:
    a, b = (step("sum", n, signs=(1, -1)) for n in (6, 4))
    assert aligned(a, b, KEPT, KEPT)
    assert not aligned(a, b, KEPT, (4, 1, 2, 5))
    assert not aligned(a, replace(b, signs=(1, 1)), KEPT, KEPT)
    assert not aligned(a, b, None, KEPT)


def two_inputs(kinds: tuple[Step, Step], **kept: Any) -> bool:
    """Whether s = kind(h, k) is aligned, where h has 6 and 4 elements, k has 5 and 4."""
    nets = [
        Program("x", (9,), False, (moved("h", n), moved("k", m), replace(s, inputs=("h", "k"))), "s", "")
        for n, m, s in zip((6, 4), (5, 4), kinds, strict=True)
    ]
    return stages_of_pair(nets[0], nets[1], lift(**kept))[-1].aligned


def test_every_input_of_a_sum_is_kept_alike() -> None:
    both = step("sum", 5, signs=(1, 1)), step("sum", 4, signs=(1, 1))
    same, other = (4, 1, 0, 2), (4, 1, 2, 0)
    assert two_inputs(both, h=same, k=same, s=same)
    assert not two_inputs(both, h=same, k=other, s=same)
    assert not two_inputs(both, h=other, k=same, s=same)
    assert not two_inputs(both, h=same, k=same, s=other)
    assert not two_inputs(both, h=same, s=same)
    assert not two_inputs(both, k=same, s=same)


def test_windows_of_a_maximum_are_compared_element_by_element() -> None:
    a = step("max", 3, [[0, 4, -1], [5, 2, 1], [1, 4, 2]])
    b = step("max", 2, [[1, 0, 3], [2, 3, 1]])
    assert aligned(a, b, KEPT, (2, 1))
    for row, column in np.ndindex(2, 3):
        for entry in range(-1, 4):
            taps = b.taps.copy()
            taps[row, column] = entry
            assert aligned(a, replace(b, taps=taps), KEPT, (2, 1)) is bool(entry == b.taps[row, column])
    assert not aligned(a, b, KEPT, (1, 2))
    assert not aligned(a, b, (1, 4, 5, 2), (2, 1))
    assert aligned(a, replace(b, taps=np.array([[-1, 0, 3], [2, 3, 1]])), KEPT, (0, 1)) is False
    c = step("max", 3, [[4, -1, -1], [5, 2, 1], [1, 4, 2]])
    assert aligned(c, replace(b, taps=np.array([[0, -1, -1], [2, 3, 1]])), KEPT, (0, 1))
    shorter = replace(b, taps=b.taps[:, :1])
    assert not aligned(replace(a, taps=np.array([[1, 1], [5, 5], [1, 1]])), shorter, KEPT, (2, 1))


def test_gathered_elements_and_their_fill_are_compared() -> None:
    a, b = step("gather", 5, [3, -1, 4, 0, 5]), step("gather", 3, [2, -1, 0])
    now = (4, 1, 2)
    assert aligned(a, b, KEPT, now)
    for taps in ([2, 3, 0], [2, -1, 1], [-1, -1, 0], [0, -1, 2]):
        assert not aligned(a, replace(b, taps=np.array(taps)), KEPT, now)
    fills = [None, p.integers([2], ()), p.integers([3], ()), Real(np.array(2.0), np.array(0), np.array(1.0))]
    for i, first in enumerate(fills):
        for j, second in enumerate(fills):
            found = aligned(replace(a, bias=first), replace(b, bias=second), KEPT, now)
            assert found is (i == j and i < 3)


def test_inputs_that_are_joined_are_numbered_one_behind_the_other() -> None:
    """h has 6 and 4 elements, k has 5 and 4: element 3 of the compact k is number 7 there."""
    a, b = step("gather", 4, [2, 6, 10, 8]), step("gather", 4, [3, 4, 7, 5])
    kept = {"h": KEPT, "k": (0, 2, 3, 4), "s": (0, 1, 2, 3)}
    assert two_inputs((a, b), **kept)
    for taps in ([2, 4, 7, 5], [3, 5, 7, 5], [3, 4, 6, 5], [3, 0, 7, 5]):
        assert not two_inputs((a, replace(b, taps=np.array(taps))), **kept)


def test_steps_that_read_other_values_are_not_compared() -> None:
    first, second = moved("h", 3), moved("k", 3)
    nets = [
        Program("x", (9,), False, (first, second, Step("s", "relu", (name,), (3,))), "s", "") for name in ("h", "k")
    ]
    assert stages_of_pair(nets[0], nets[0], ())[-1].aligned
    assert not stages_of_pair(nets[0], nets[1], ())[-1].aligned


def test_a_lift_names_values_of_the_same_step_once() -> None:
    a, b = step("relu", 6), step("relu", 4)
    nets = [Program("x", (9,), False, (moved("h", s.shape[0]), s), "s", "") for s in (a, b)]
    good = Correspondence("h", "h", 0, KEPT), Correspondence("s", "s", 0, KEPT)
    assert [s.aligned for s in stages_of_pair(nets[0], nets[1], good)] == [False, True]
    for wrong in (
        (*good, good[0]), (good[0], good[0]), (replace(good[0], compact="s"),), (replace(good[1], compact="h"),),
        (replace(good[0], original="x"),), (Correspondence("x", "x", 0, (0,)),),
        (*good, Correspondence("a", "b", 0, (0,))),
    ):  # fmt: skip
        with pytest.raises(Refuted, match="names a value twice"):
            stages_of_pair(nets[0], nets[1], wrong)
    for steps in ((moved("h", 4),), (moved("h", 4), b, replace(b, name="t")), (b, moved("h", 4)), ()):
        with pytest.raises(Refuted, match="different steps"):
            stages_of_pair(nets[0], replace(nets[1], steps=steps), ())


def test_stages_know_their_steps_and_inputs() -> None:
    steps = (
        moved("h", 3), Step("k", "relu", ("x",), (9,)), p.linear("l", "h", (3,), p.integers([1, 2, 3], (1, 3)), None),
        Step("s", "gather", ("k", "h", "x"), (1,), np.array([0])),
        p.linear("m", "l", (1,), p.integers([5], (1, 1)), None),
    )  # fmt: skip
    net = Program("x", (9,), False, steps, "m", "")
    for found in (stages_alone(net), stages_of_pair(net, net, ())):
        assert [s.step for s in found] == list(steps)
        assert [s.inputs for s in found] == [(0,), (0,), (1,), (2, 1, 0), (3,)]
        assert [s.own is not None for s in found] == [False, False, True, False, True]
        for s, inputs in ((found[2], 3), (found[4], 1)):
            assert s.own is not None
            assert matrix(s.own, inputs).tolist() == [[1, 2, 3]] if inputs == 3 else [[5]]
            assert s.own.linear.in_order  # it reads all of its input, in order
    assert [s.compact for s in stages_alone(net)] == [None] * 5
    assert not any(s.aligned for s in stages_alone(net))
    assert [s.compact_inputs for s in stages_of_pair(net, net, ())] == [(0,), (0,), (1,), (2, 1, 0), (3,)]
    assert not Stage(steps[0], (0,)).aligned
    for s in stages_of_pair(net, net, ()):
        assert s.kept is not None
        assert s.kept.tolist() == list(range(s.step.shape[0]))


# affine steps


def matrix(map_: Affine, inputs: int) -> np.ndarray:
    """The dense matrix of an exactly known map."""
    linear = map_.linear
    rows = linear.rows
    whole = (linear.both[:, :rows] * 2.0**20 + linear.both[:, rows:]) * 2.0**linear.exponent
    assert not linear.loss.any()
    found = []
    for weights, taps in zip(whole, linear.taps, strict=True):
        for row in weights:
            for window in taps:
                dense = np.zeros(inputs + 1)
                np.add.at(dense, window, row)  # tap -1 is the entry behind the last, which is 0
                found.append(dense[:inputs])
    dense = np.array(found)
    return dense if map_.place is None else dense[map_.place]


def constant(map_: Affine) -> Any:
    assert map_.bias_error is None or not map_.bias_error.any()
    return 0.0 if map_.bias is None else map_.bias * 2.0**map_.bias_unit


def run(s: Step, x: np.ndarray) -> np.ndarray:
    """y[g, o, p] = sum_k weight[g, o, k] x[taps[g, p, k]] + bias, as in SPEC.md."""
    assert s.weight is not None
    weight, padded = s.weight.mantissa * 2.0**s.weight.exponent, np.append(x, 0.0)
    flat = np.array([row @ padded[window] for g, taps in enumerate(s.taps) for row in weight[g] for window in taps])
    flat = flat if s.place is None else flat[s.place]
    return flat if s.bias is None else flat + s.bias.mantissa * 2.0**s.bias.exponent


def holds(found: Stage, kept: Index, rng: np.random.Generator) -> bool:
    """Whether the equation for D holds at random z and y; own maps are tested on the way."""
    a, b = found.step, found.compact
    assert b is not None
    assert found.own is not None
    assert found.compact_own is not None
    assert found.cross is not None
    assert found.kept is not None
    z, y = rng.integers(-9, 10, 6).astype(float), rng.integers(-9, 10, len(kept)).astype(float)
    ours, theirs = run(a, z), run(b, y)
    assert np.array_equal(matrix(found.own, 6) @ z + constant(found.own), ours)
    own = matrix(found.compact_own, len(kept))
    assert np.array_equal(own @ y + constant(found.compact_own), theirs)
    rule = matrix(found.cross, 6) @ z + own @ (z[kept] - y) + constant(found.cross)
    return bool(np.array_equal(rule, ours[found.kept] - theirs))


def drawn(rng: np.random.Generator, shape: tuple[int, ...], spread: int = 9) -> Real:
    values = rng.integers(1, spread, shape) * rng.choice([-1, 1], shape)
    return p.integers(values.ravel().tolist(), shape)


def dense(rng: np.random.Generator, biases: tuple[bool, bool]) -> tuple[Step, Step, Any, Any]:
    """A matrix of which rows and columns are kept, in another order."""
    now = (2, 0, 3)
    a = p.linear("s", "h", (6,), drawn(rng, (5, 6)), drawn(rng, (5,)) if biases[0] else None)
    b = p.linear("s", "h", (4,), drawn(rng, (3, 4)), drawn(rng, (3,)) if biases[1] else None)
    return a, b, KEPT, now


def rows_of_a_sequence(rng: np.random.Generator, biases: tuple[bool, bool]) -> tuple[Step, Step, Any, Any]:
    """A matrix on each of two rows: (2, 3) -> (2, 4), compact (2, 2) -> (2, 3)."""
    a = p.linear("s", "h", (2, 3), drawn(rng, (4, 3)), drawn(rng, (4,)) if biases[0] else None)
    b = p.linear("s", "h", (2, 2), drawn(rng, (3, 2)), drawn(rng, (3,)) if biases[1] else None)
    return a, b, brute((2, 3), 1, (2, 0)), brute((2, 4), 1, (3, 1, 2))


def shorter_sequence(rng: np.random.Generator, biases: tuple[bool, bool]) -> tuple[Step, Step, Any, Any]:
    """Only one of the two rows is left."""
    a = p.linear("s", "h", (2, 3), drawn(rng, (4, 3)), drawn(rng, (4,)) if biases[0] else None)
    b = p.linear("s", "h", (1, 2), drawn(rng, (4, 2)), drawn(rng, (4,)) if biases[1] else None)
    return a, b, brute((2, 3), 1, (2, 0))[2:], brute((2, 4), 0, (1,))


def convolved(rng: np.random.Generator, biases: tuple[bool, bool]) -> tuple[Step, Step, Any, Any]:
    """Two channels of length 3, of which the second is kept."""
    window = Window((2,), (1,), (1, 0), (1,))
    a = p.convolution("s", "h", (2, 3), drawn(rng, (3, 2, 2)), drawn(rng, (3,)) if biases[0] else None, window, 1)
    b = p.convolution("s", "h", (1, 3), drawn(rng, (2, 1, 2)), drawn(rng, (2,)) if biases[1] else None, window, 1)
    return a, b, (3, 4, 5), brute((3, 3), 0, (2, 0))


def grouped(rng: np.random.Generator, biases: tuple[bool, bool]) -> tuple[Step, Step, Any, Any]:
    """Three groups of one channel of length 2, of which two are kept, the last one first; two rows of each."""
    window = Window((2,), (1,), (1, 1), (1,))
    a = p.convolution("s", "h", (3, 2), drawn(rng, (6, 1, 2)), drawn(rng, (6,)) if biases[0] else None, window, 3)
    b = p.convolution("s", "h", (2, 2), drawn(rng, (4, 1, 2)), drawn(rng, (4,)) if biases[1] else None, window, 2)
    return a, b, (4, 5, 0, 1), brute((6, 3), 0, (5, 4, 0, 1))


def element_by_element(rng: np.random.Generator, biases: tuple[bool, bool]) -> tuple[Step, Step, Any, Any]:
    a = p.scaled("s", "h", (6,), drawn(rng, (6,)), drawn(rng, (6,)) if biases[0] else None)
    b = p.scaled("s", "h", (4,), drawn(rng, (4,)), drawn(rng, (4,)) if biases[1] else None)
    return a, b, KEPT, KEPT


def padded_windows(rng: np.random.Generator, biases: tuple[bool, bool]) -> tuple[Step, Step, Any, Any]:
    """Columns in another order in every group, one of them padding alone; elements without a counterpart."""
    taps = np.array([[[0, 4, -1, 1], [3, 5, -1, -1]], [[2, -1, 1, 4], [1, 0, 5, -1]]])
    compact = np.array([[[0, 1, -1], [2, -1, -1]], [[1, -1, 0], [2, -1, -1]]])
    a = Step("s", "affine", ("h",), (4,), taps, drawn(rng, (2, 1, 4)), drawn(rng, (4,)) if biases[0] else None)
    b = Step("s", "affine", ("h",), (4,), compact, drawn(rng, (2, 1, 3)), drawn(rng, (4,)) if biases[1] else None)
    return a, b, KEPT, (0, 1, 2, 3)


def test_an_affine_step_without_a_counterpart_has_no_rule() -> None:
    rng = np.random.default_rng(3)
    for layer in LAYERS:
        a, b, kept, now = layer(rng, (True, True))
        smaller = p.linear("s", "h", (len(kept),), drawn(rng, (1, len(kept))), None)
        for pair in ((a, b, None, now), (a, smaller, kept, None)):
            found = stages(*pair, (6, len(kept)))[-1]
            assert not found.aligned
            assert found.cross is None
            assert (found.kept is None) is (pair[3] is None)


LAYERS = [dense, rows_of_a_sequence, shorter_sequence, convolved, grouped, element_by_element, padded_windows]
BIASES = [(False, False), (True, False), (False, True), (True, True)]


@pytest.mark.parametrize("biases", BIASES)
@pytest.mark.parametrize("layer", LAYERS)
def test_the_rule_for_d_is_an_identity(layer: Any, biases: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(0)
    a, b, kept, now = layer(rng, biases)
    found = stages(a, b, kept, now, (6, len(kept)))[-1]
    assert found.aligned
    assert all(holds(found, np.array(kept), rng) for _ in range(3))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_that_differs_from_its_lift_has_no_rule_or_a_true_one(layer: Any) -> None:
    """One tap, two kept elements before or behind, or the order of the results are changed."""
    rng = np.random.default_rng(1)
    refused = 0
    for i in range(48):
        a, b, kept, now = layer(rng, (True, True))
        kept, now, taps = list(kept), list(now), b.taps.copy()
        if i % 4 == 0:
            taps[tuple(rng.integers(0, taps.shape))] = rng.integers(-1, len(kept))
        elif i % 4 == 1 and len(now) > 1:
            first, second = rng.choice(len(now), 2, replace=False)
            now[first], now[second] = now[second], now[first]
        elif i % 4 == 2:
            now = rng.permutation(int(np.prod(a.shape)))[: len(now)].tolist()
        else:
            kept = rng.permutation(6)[: len(kept)].tolist()
        found = stages(a, replace(b, taps=taps), kept, now, (6, len(kept)))[-1]
        refused += not found.aligned
        assert (found.cross is not None) is found.aligned
        assert not found.aligned or all(holds(found, np.array(kept), rng) for _ in range(2))
    assert refused > 5


def test_a_column_is_found_where_it_is_no_padding() -> None:
    """It reads element 0 at the second position alone, and another column has the same padding."""
    rng = np.random.default_rng(4)
    a = Step("s", "affine", ("h",), (2,), np.array([[[-1, -1], [3, 0]]]), drawn(rng, (1, 1, 2)))
    b = Step("s", "affine", ("h",), (2,), np.array([[[-1], [0]]]), drawn(rng, (1, 1, 1)))
    found = stages(a, b, (0,), (0, 1), (6, 1))[-1]
    assert found.aligned
    assert holds(found, np.array([0]), rng)


def test_an_element_read_twice_is_no_two_elements() -> None:
    """The compact window reads one element twice; then its columns are not those of the original."""
    rng = np.random.default_rng(2)
    a = Step("s", "affine", ("h",), (1,), np.array([[[4, 1, 5, 2, 0, 3]]]), drawn(rng, (1, 1, 6)))
    for taps, good in (([0, 1, 2, 3], True), ([0, 1, 2, 2], False), ([0, 0, 0, 0], False), ([3, 1, 2, 0], True)):
        b = Step("s", "affine", ("h",), (1,), np.array([[taps]]), drawn(rng, (1, 1, 4)))
        assert aligned(a, b, KEPT, (0,)) is good


def ulp(value: float) -> float:
    """The unit of the last of 53 binary digits."""
    return float(2.0 ** (np.frexp(value)[1] - 53))


@pytest.mark.parametrize("first", [5.5, -3e12, 0.1, 2.0**60])
@pytest.mark.parametrize("second", [0.3, 7e11, -5.5, 2.0**60])
def test_what_the_matrix_of_the_difference_loses_is_bounded(first: float, second: float) -> None:
    """Weights known to 3 and to 5 units: every difference of two of them lies within the loss of its row."""

    def layer(value: float, slack: float) -> Step:
        numbers = replace(p.from_bits(np.array([value]).tobytes(), "float64"), slack=np.array([slack]))
        return Step("s", "affine", ("h",), (1,), np.zeros((1, 1, 1), np.int64), numbers.reshape(1, 1, 1))

    found = stages(layer(first, 3.0), layer(second, 5.0), (0,), (0,), (1, 1))[-1]
    assert found.cross is not None
    linear = found.cross.linear
    (hi, lo), unit = linear.both[0, :, 0], Fraction(2) ** linear.exponent
    stored, loss = (int(hi) * 2**20 + int(lo)) * unit, int(linear.loss[0, 0]) * unit
    reach = 3 * Fraction(ulp(first)) + 5 * Fraction(ulp(second))
    assert abs(Fraction(first) - Fraction(second) - stored) + reach <= loss
    assert loss <= 4 * reach + max(abs(first), abs(second)) * 2.0**-37


def test_equal_weights_cancel_whatever_their_unit_loses() -> None:
    numbers = p.from_bits(np.array([2.0**40, 0.1, -(2.0**-30)]).tobytes(), "float64").reshape(1, 1, 3)
    a = Step("s", "affine", ("h",), (1,), np.arange(3)[None, None], numbers)
    found = stages(a, a, (0, 1, 2), (0,), (3, 3))[-1]
    assert found.cross is not None
    assert not found.cross.linear.both.any()
    assert not found.cross.linear.loss.any()
    assert found.own is not None
    assert found.own.linear.loss.any()
    assert (found.cross.linear.upper == 0).all()  # the bound of an entry that is 0 for certain
    uncertain = replace(numbers, slack=np.array([[[1.0, 0.0, 0.0]]]))
    found = stages(replace(a, weight=uncertain), replace(a, weight=uncertain), (0, 1, 2), (0,), (3, 3))[-1]
    assert found.cross is not None
    assert found.cross.linear.loss.any()


@pytest.mark.parametrize("value", [1.0, -3.0, 2.0**52 - 1, 2.0**-40, 0.1])
def test_own_maps_keep_forty_bits_of_every_weight(value: float) -> None:
    numbers = p.from_bits(np.array([value, 0.0]).tobytes(), "float64").reshape(1, 1, 2)
    found = own_map(Step("s", "affine", ("h",), (1,), np.arange(2)[None, None], numbers), 2)
    assert found is not None
    hi, lo = found.linear.both[0]
    stored = (hi * 2.0**20 + lo) * 2.0**found.linear.exponent
    assert abs(stored[0] - value) <= found.linear.loss[0, 0] * 2.0**found.linear.exponent <= abs(value) * 2.0**-37
    assert (found.bias, found.bias_error, found.bias_unit) == (None, None, 0)


@pytest.mark.parametrize(
    ("first", "second"), [(2.0**40, 0.1), (0.1, 2.0**40), (0.1, 0.1), (3.0, 5.0), (0.1, None), (None, 0.1)]
)
def test_the_difference_of_biases_is_known_to_its_error(first: float | None, second: float | None) -> None:
    """Two elements each, the second of them alike; in the order of the kept elements."""

    def biased(value: float | None, order: list[int]) -> Step:
        numbers = None
        if value is not None:
            both = p.from_bits(np.array([value, 0.3]).tobytes(), "float64")
            numbers = replace(both, slack=np.array([7.0, 0.0]))[np.array(order)]
        weight = p.integers([1, 1], (1, 2, 1))
        return Step("s", "affine", ("h",), (2,), np.zeros((1, 1, 1), np.int64), weight, numbers)

    found = stages(biased(first, [1, 0]), biased(second, [0, 1]), (0,), (1, 0), (1, 1))[-1]
    assert found.cross is not None
    assert found.cross.bias is not None
    assert found.cross.bias_error is not None
    unit = 2.0**found.cross.bias_unit
    bias, error = found.cross.bias * unit, found.cross.bias_error * unit
    reach = sum(7 * ulp(v) for v in (first, second) if v is not None)
    true = (first or 0.0) - (second or 0.0)
    assert abs(true - bias[0]) + reach <= error[0] + abs(true) * 2.0**-50
    assert error[0] <= reach + 4 * unit
    rest = (0.3 if first is not None else 0.0) - (0.3 if second is not None else 0.0)
    assert abs(rest - bias[1]) <= error[1]
    assert bool(error[1] == 0) is bool(bias[1] == 0) is (rest == 0)
    assert unit <= max(abs(first or 0), abs(second or 0)) * 2.0**-48
