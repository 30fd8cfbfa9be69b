"""Which values of two networks belong together, and the exact matrices of their difference.

`kept[j]` is the element of the original's value that element j of the compact value stands for, and
D = z[kept] - y. The lift of a certificate only suggests the kept elements: D is defined by them whatever they are,
and a rule for D is used only where its premise was checked element by element. For an affine step

    D' = (W[kept'] - V S) z + V D + b[kept'] - c,     (S x)[k] = x[kept[k]],

the premise is that every element of a compact window stands for an element of the window of the original.
Where a premise fails, D' is z'[kept'] - y' as it stands: wider, never wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from verify.audit.exact import Array, Index, Refuted
from verify.audit.linear import LinearMap, linear_map
from verify.audit.program import Program, Shape, Step


@dataclass(frozen=True)
class Affine:
    """A prepared affine map: `linear`, then `place`; `bias` with its error, in units of 2^bias_unit."""

    linear: LinearMap
    place: Index | None
    bias: Array | None
    bias_error: Array | None
    bias_unit: int


@dataclass(frozen=True)
class Stage:
    """One step of both networks, or of one alone. Inputs are positions in the list of values; 0 is the input.

    Attributes:
        own, compact_own: the affine maps of z and of y.
        cross: the affine map of z in D'; the map of D in D' is `compact_own` without its bias.
        kept: elements of the original's value that the compact value stands for, None if unknown.
        aligned: the premise of the rule for D holds.
    """

    step: Step
    inputs: tuple[int, ...]
    compact: Step | None = None
    compact_inputs: tuple[int, ...] = ()
    own: Affine | None = None
    compact_own: Affine | None = None
    cross: Affine | None = None
    kept: Index | None = None
    aligned: bool = False


@dataclass(frozen=True)
class Correspondence:
    """An entry of the lift: the compact value keeps the positions `kept` of an axis of the original's value."""

    original: str
    compact: str
    axis: int
    kept: tuple[int, ...]


def stages_alone(program: Program) -> list[Stage]:
    """The stages of one network by itself."""
    sizes = _sizes(program)
    return [Stage(s, i, own=own_map(s, sizes[i[0]])) for s, i in zip(program.steps, _inputs(program), strict=True)]


def stages_of_pair(original: Program, compact: Program, lift: Sequence[Correspondence]) -> list[Stage]:
    """The stages of two networks with the same kinds of steps.

    Raises:
        Refuted: the topologies differ, or an entry of the lift does not fit the networks.
    """
    if [s.kind for s in original.steps] != [s.kind for s in compact.steps]:
        raise Refuted("the networks have different steps and cannot be compared value by value")
    entries = {c.original: c for c in lift}
    names = {s.name: c.name for s, c in zip(original.steps, compact.steps, strict=True)}
    if len(entries) != len(lift) or any(names.get(c.original) != c.compact for c in lift):
        raise Refuted("the lift names a value twice, or one that the networks do not have at the same step")
    sizes, compact_sizes = _sizes(original), _sizes(compact)
    kept: list[Index | None] = [np.arange(prod(original.input_shape), dtype=np.int64)]
    stages = []
    for a, b, ia, ib in zip(original.steps, compact.steps, _inputs(original), _inputs(compact), strict=True):
        now = kept_elements(original.sample_shape(a.name), compact.sample_shape(b.name), entries.get(a.name))
        pair = Stage(a, ia, b, ib, own_map(a, sizes[ia[0]]), own_map(b, compact_sizes[ib[0]]))
        stages.append(_stage(pair, [kept[i] for i in ia], [sizes[i] for i in ia], now))
        kept.append(now)
    return stages


def _sizes(program: Program) -> list[int]:
    return [prod(program.input_shape), *(prod(s.shape) for s in program.steps)]


def _inputs(program: Program) -> list[tuple[int, ...]]:
    position = {name: i for i, name in enumerate([program.input, *(s.name for s in program.steps)])}
    return [tuple(position[n] for n in s.inputs) for s in program.steps]


def kept_elements(shape: Shape, compact: Shape, entry: Correspondence | None) -> Index | None:
    """Elements that the compact value stands for; None where nothing is said and the sizes differ.

    Raises:
        Refuted: an axis or a position out of range, positions repeated, or a number of them that does not fit.
    """
    numbers = np.arange(prod(shape), dtype=np.int64)
    if entry is None:
        return numbers if prod(shape) == prod(compact) else None
    axis, kept = entry.axis, entry.kept
    fits = axis < len(shape) and bool(kept) and min(kept) >= 0 and len(set(kept)) == len(kept)
    if not fits or max(kept) >= shape[axis] or (*shape[:axis], len(kept), *shape[axis + 1 :]) != compact:
        raise Refuted(f"the lift of value {entry.original!r} does not fit the shapes {shape} and {compact}")
    return np.take(numbers.reshape(shape), np.array(kept, dtype=np.int64), axis=axis).reshape(-1)


def _stage(pair: Stage, before: list[Index | None], sizes: list[int], now: Index | None) -> Stage:
    """`pair` with its maps, and with the rule for D where the premise holds."""
    a, b = pair.step, pair.compact
    known = [k for k in before if k is not None]
    if b is None or now is None or pair.inputs != pair.compact_inputs or len(known) < len(before):
        return replace(pair, kept=now)
    if a.kind == "affine":
        cross = _cross(a, b, known[0], now, sizes[0])
        return replace(pair, cross=cross, kept=now, aligned=cross is not None)
    offsets = np.cumsum([0, *sizes])
    joined = np.concatenate([k + o for k, o in zip(known, offsets, strict=False)])
    aligned = {
        "relu": lambda: np.array_equal(joined, now),
        "sum": lambda: a.signs == b.signs and all(np.array_equal(k, now) for k in known),
        "max": lambda: _same_taps(a, b, joined, now),
        "gather": lambda: _same_taps(a, b, joined, now) and _same_fill(a, b),
    }[a.kind]()
    return replace(pair, kept=now, aligned=bool(aligned))


def _same_taps(a: Step, b: Step, kept: Index, now: Index) -> bool:
    """Whether every element that the compact step reads stands for the element that the original reads there."""
    wanted = a.taps[now]
    return wanted.shape == b.taps.shape and bool((_extended(kept)[b.taps] == wanted).all())


def _same_fill(a: Step, b: Step) -> bool:
    if a.bias is None or b.bias is None:
        return a.bias is b.bias
    return bool(a.bias.same(b.bias).all())


def _extended(kept: Index) -> Index:
    """`kept` with a last entry -1, so that the index -1 (the constant 0) stands for itself."""
    return np.append(kept, -1)


def own_map(step: Step, inputs: int) -> Affine | None:
    """The affine map of a step on `inputs` values, None for other kinds."""
    if step.weight is None:
        return None
    unit = step.weight.top - 52
    linear = linear_map(*step.weight.units(unit), unit, step.taps, inputs)
    return Affine(linear, step.place, *_bias(step, None, None))


def _bias(step: Step, minus: Step | None, now: Index | None) -> tuple[Array | None, Array | None, int]:
    """Integers, errors and unit of the bias of a step, or of the difference bias[now] - bias of `minus`."""
    parts = [s.bias for s in (step, minus) if s is not None and s.bias is not None]
    if not parts:
        return None, None, 0
    unit = max(part.top for part in parts) - 52
    whole = [np.zeros(1), np.zeros(1)]
    error = [np.zeros(1), np.zeros(1)]
    for i, one in enumerate((step, minus)):
        if one is not None and one.bias is not None:
            whole[i], error[i] = (a[now] if i == 0 and now is not None else a for a in one.bias.units(unit))
    if step.bias is not None and minus is not None and minus.bias is not None and now is not None:
        error = [np.where(step.bias[now].same(minus.bias), 0.0, e) for e in error]
    return whole[0] - whole[1], error[0] + error[1], unit


def _cross(a: Step, b: Step, kept: Index, now: Index, inputs: int) -> Affine | None:
    """The map of z in the rule for D of an affine step; None if its premise fails."""
    if a.weight is None or b.weight is None:
        return None
    places = _places(a, b, now)
    if places is None:
        return None
    group, row, position = places
    taps = a.taps[group[:, None], position[None, :]]  # (groups, positions, window of the original)
    columns = _columns(taps, _extended(kept)[b.taps])
    if columns is None:
        return None
    v = b.weight.expand((*row.shape, b.taps.shape[2]))
    w = a.weight[group[:, None], row]
    unit = max(w.top, v.top) - 52
    whole, error = w.units(unit)
    v_whole, v_error = v.units(unit)
    same = np.zeros(whole.shape, dtype=bool)
    for g, (use, column) in enumerate(columns):
        same[g][:, column] = w[g][:, column].same(v[g][:, use])
        whole[g][:, column] -= v_whole[g][:, use]
        error[g][:, column] += v_error[g][:, use]
    linear = linear_map(whole, np.where(same, 0.0, error), unit, taps, inputs)
    return Affine(linear, b.place, *_bias(a, b, now))


def _places(a: Step, b: Step, now: Index) -> tuple[Index, Index, Index] | None:
    """Group (g), row (g, o) and position (p) of the original that each of the compact step stands for."""
    groups, positions, _ = b.taps.shape
    numbers = now if b.place is None else now[np.argsort(b.place)]
    numbers = (numbers if a.place is None else a.place[numbers]).reshape(groups, -1, positions)
    a_groups, a_positions, _ = a.taps.shape
    rows = prod(a.shape) // (a_groups * a_positions)
    group, row, position = np.unravel_index(numbers, (a_groups, rows, a_positions))
    first = group[:, 0, 0], row[:, :, 0], position[0, 0, :]
    alike = (group == first[0][:, None, None]) & (row == first[1][:, :, None]) & (position == first[2])
    return first if alike.all() else None


def _columns(taps: Index, wanted: Index) -> list[tuple[Index, Index]] | None:
    """Per group: columns of the compact window that are used, and the columns of the original they stand for.

    `taps` and `wanted` are (groups, positions, window): elements of the original read by both windows. None if
    some element of a compact window is not at the same place of the window of the original everywhere.
    """
    found = []
    for own, want in zip(taps, wanted, strict=True):
        use = np.flatnonzero((want >= 0).any(axis=0))
        where = np.argmax(want >= 0, axis=0)[use]  # a position at which the column is no padding
        column = np.zeros(len(use), dtype=np.int64)
        for at in np.unique(where):
            order = np.argsort(own[at], kind="stable")
            sought = want[at, use[where == at]]
            slot = np.minimum(np.searchsorted(own[at], sought, sorter=order), own.shape[1] - 1)
            column[where == at] = order[slot]
        if len(np.unique(column)) < len(column) or not np.array_equal(own[:, column], want[:, use]):
            return None
        found.append((use, column))
    return found
