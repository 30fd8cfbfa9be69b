"""Which element of the original each element of the compact network stands for.

A compact network has the original's nodes with fewer channels. For every value the lift names the axis along
which it shrank and the channels that were kept; `align` checks, node after node, that the operations respect
that pairing (structural induction), so that the difference z[kept] - y can be propagated. The channels are an
untrusted hint: a wrong one is refused here, and could only cost tightness, never truth.
Theory: theory_notes/lift.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.errors import MismatchError
from verify.network.graph import Network, Node, Shape
from verify.network.operations import OPERATIONS

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Correspondence:
    """Compact element ``j`` along `axis` stands for original element ``kept[j]``; other axes agree.

    Attributes:
        original, compact: names of the two values.
    """

    original: str
    compact: str
    axis: int
    kept: tuple[int, ...]


Lift = tuple[Correspondence, ...]

MOVES = frozenset({"reshape", "transpose", "slice", "pad", "concat"})
_OWN_ATTRIBUTES = {"reshape": {"shape"}, "slice": {"starts", "stops", "steps"}, "pad": {"padding"}}
_ANY_PAIRING = frozenset({"constant", "multiply", "matmul", "softmax", "layer_norm", "attention"})


def align(original: Network, compact: Network, channels: Mapping[str, Any] | None) -> Lift | None:
    """The lift of two networks, one correspondence per value, the input first.

    Args:
        channels: the content of ``channels.json``, or None when nothing was removed.

    Returns:
        None when the networks are not built from the same nodes in the same way, or have values of other
        sizes and no channels say how they correspond; they are then bounded separately.

    Raises:
        MismatchError: the channels are malformed or contradict the networks.
    """
    names = _paired_names(original, compact)
    if names is None or original.input_shape != compact.input_shape or original.output_shape != compact.output_shape:
        return None
    hints = _hints(channels, names)
    lift = []
    for first, second in names.items():
        large, small = original.shape_of(first), compact.shape_of(second)
        if large != small and second not in hints and channels is None:
            return None
        lift.append(_correspondence(first, second, large, small, hints.get(second)))
    _check(original, compact, lift)
    return tuple(lift)


def flat_index(shape: Shape, axis: int, kept: Sequence[int]) -> Index:
    """Flat positions ``(m,)`` in an original value of `shape` of the kept elements, row-major."""
    grid = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    return (np.take(grid, np.asarray(kept, dtype=np.int64), axis=axis) if shape else grid).ravel()


def sources(network: Network, node: Node) -> Index:
    """For an operation that moves elements: flat source of each output element, -1 for a padded constant.

    Inputs are numbered one after the other, as if they were one long vector.
    """
    shapes = [network.shape_of(name) for name in node.inputs]
    sizes = [int(np.prod(shape)) for shape in shapes]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    runs = []
    for shift in (1.0, 2.0 + starts[-1]):
        grids = [
            (np.arange(n) + s + shift).reshape(1, *shape)
            for n, s, shape in zip(sizes, starts[:-1], shapes, strict=True)
        ]
        runs.append(OPERATIONS[node.op].evaluate(node, grids, {}).ravel())
    moved = runs[1] != runs[0]
    index: Index = np.where(moved, runs[0] - 1.0, -1.0).astype(np.int64)
    return index


def _paired_names(original: Network, compact: Network) -> dict[str, str] | None:
    """Original value -> compact value, in order; None unless both are wired alike."""
    if len(original.nodes) != len(compact.nodes):
        return None
    names = {original.input: compact.input}
    for first, second in zip(original.nodes, compact.nodes, strict=True):
        wired = tuple(names[source] for source in first.inputs) == second.inputs
        if first.op != second.op or not wired or not _same_attributes(first, second):
            return None
        names[first.name] = second.name
    return names if names[original.output] == compact.output else None


def _same_attributes(first: Node, second: Node) -> bool:
    own = _OWN_ATTRIBUTES.get(first.op, set())
    if first.op == "conv":
        own = {"groups"}
    keys = set(first.attributes) | set(second.attributes)
    return all(k in own or first.attributes.get(k) == second.attributes.get(k) for k in keys)


def _hints(channels: Mapping[str, Any] | None, names: Mapping[str, str]) -> dict[str, tuple[int, tuple[int, ...]]]:
    if channels is None:
        return {}
    values = channels.get("values") if isinstance(channels, Mapping) else None
    if not isinstance(values, Mapping) or channels.get("version") != 1:
        raise MismatchError('channels must look like {"version": 1, "values": {name: {"axis": 0, "kept": [...]}}}')
    unknown = sorted(set(values) - set(names.values()))
    if unknown:
        raise MismatchError(f"channels name the value {unknown[0]!r}, which the compact network does not have")
    return {name: _hint(name, entry) for name, entry in values.items()}


def _hint(name: str, entry: Any) -> tuple[int, tuple[int, ...]]:
    axis = entry.get("axis") if isinstance(entry, Mapping) else None
    kept = entry.get("kept") if isinstance(entry, Mapping) else None
    if type(axis) is not int or not isinstance(kept, list | tuple) or any(type(k) is not int for k in kept):
        raise MismatchError(f"channels of value {name!r} need an integer axis and a list of integers kept")
    return axis, tuple(kept)


def _correspondence(
    first: str, second: str, large: Shape, small: Shape, hint: tuple[int, tuple[int, ...]] | None
) -> Correspondence:
    axis, kept = hint if hint is not None else (0, tuple(range(large[0] if large else 1)))
    where = f"channels of value {second!r}"
    if hint is not None and not (0 <= axis < len(large) == len(small)):
        raise MismatchError(f"{where}: axis {axis} does not exist in shapes {large} and {small}")
    expected = (*large[:axis], len(kept), *large[axis + 1 :]) if large else ()
    if small != expected:
        raise MismatchError(f"{where}: original shape {large} with {len(kept)} kept on axis {axis} is not {small}")
    if large and (len(set(kept)) != len(kept) or not all(0 <= k < large[axis] for k in kept)):
        raise MismatchError(f"{where}: kept indices must be distinct and in 0..{large[axis] - 1}")
    return Correspondence(first, second, axis, kept)


def _check(original: Network, compact: Network, lift: Sequence[Correspondence]) -> None:
    """Every node maps corresponding inputs to corresponding outputs."""
    pairs = {c.original: c for c in lift}
    ends = (original.input, original.output)
    for name in ends:
        if list(flat_index(original.shape_of(name), pairs[name].axis, pairs[name].kept)) != list(
            range(int(np.prod(original.shape_of(name))))
        ):
            raise MismatchError(f"channels permute or shrink the network's own input or output {name!r}")
    for first, second in zip(original.nodes, compact.nodes, strict=True):
        if first.op not in _ANY_PAIRING and not _respects(original, compact, first, second, pairs):
            raise MismatchError(
                f"channels of node {second.name!r} ({second.op}) do not follow from those of its inputs"
            )


def _respects(
    original: Network, compact: Network, first: Node, second: Node, pairs: Mapping[str, Correspondence]
) -> bool:
    indices = [_flat(original, pairs[name]) for name in first.inputs]
    output = pairs[first.name]
    if first.op in MOVES:
        return _moves_alike(original, compact, first, second, indices, _flat(original, output))
    if first.op == "linear":
        return all(_shrinks_only(original, pairs[n], -1) for n in (*first.inputs, first.name))
    if first.op == "conv":
        return all(_shrinks_only(original, pairs[n], 0) for n in (*first.inputs, first.name))
    if first.op in ("max_pool", "average_pool"):
        inner = pairs[first.inputs[0]]
        return _shrinks_only(original, inner, 0) and _shrinks_only(original, output, 0) and inner.kept == output.kept
    if first.op == "mean":
        return _means_alike(original, first, pairs[first.inputs[0]], output)
    return all(np.array_equal(index, _flat(original, output)) for index in indices)


def _flat(original: Network, pair: Correspondence) -> Index:
    return flat_index(original.shape_of(pair.original), pair.axis, pair.kept)


def _moves_alike(
    original: Network, compact: Network, first: Node, second: Node, inputs: Sequence[Index], output: Index
) -> bool:
    sizes = [int(np.prod(original.shape_of(name))) for name in first.inputs]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    joined = np.concatenate([index + start for index, start in zip(inputs, starts, strict=True)])
    large, small = sources(original, first), sources(compact, second)
    expected = np.where(small < 0, -1, joined[small])
    return bool(np.array_equal(large[output], expected))


def _shrinks_only(original: Network, pair: Correspondence, axis: int) -> bool:
    """Whether the correspondence is a gather along `axis` alone (the identity counts)."""
    shape = original.shape_of(pair.original)
    return pair.axis == axis % len(shape) or _is_identity(pair, shape)


def _is_identity(pair: Correspondence, shape: Shape) -> bool:
    return not shape or pair.kept == tuple(range(shape[pair.axis]))


def _means_alike(original: Network, node: Node, inner: Correspondence, output: Correspondence) -> bool:
    shape = original.shape_of(inner.original)
    axes = node.attributes["axes"]
    assert isinstance(axes, tuple)
    if _is_identity(inner, shape):
        return _is_identity(output, original.shape_of(output.original))
    if inner.axis in axes:
        return False
    axis = inner.axis if node.attributes["keepdims"] else inner.axis - sum(a < inner.axis for a in axes)
    return np.array_equal(_flat(original, output), flat_index(original.shape_of(output.original), axis, inner.kept))


def kept_along(original: Network, pair: Correspondence, axis: int) -> Index:
    """Kept positions along `axis` (all of them where the value did not shrink)."""
    shape = original.shape_of(pair.original)
    if _is_identity(pair, shape):
        return np.arange(shape[axis])
    if pair.axis != axis % len(shape):
        raise MismatchError(f"value {pair.original!r} shrank along axis {pair.axis}, expected {axis % len(shape)}")
    return np.asarray(pair.kept, dtype=np.int64)
