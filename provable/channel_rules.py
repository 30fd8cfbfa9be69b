"""How channels pass through each op: one small rule per op, joined to it by a table.

A rule takes the labels of the node's inputs (see `atoms`) and returns those of its value. It may unite
atoms (they leave together), pin them (they stay, with the reason), or create fresh ones. The condition
every rule keeps: when whole classes leave, what is left of the value depends only on what is left of the
inputs, once the linear and conv nodes that read a leaving channel drop its weights. theory_notes/channel_groups.md
has the argument op by op.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import numpy as np

from provable.atoms import Atoms, Labels, first_along, varying
from verify.network.graph import Network, Node, Shape

Rule: TypeAlias = Callable[[Atoms, Network, Node, Sequence[Labels]], Labels]


def is_depthwise(network: Network, node: Node) -> bool:
    """Whether the node is a convolution in which every input channel feeds outputs of its own."""
    return node.op == "conv" and node.attributes["groups"] == network.shape_of(node.inputs[0])[0] > 1


def passes(atoms: Atoms, network: Network, node: Node, inputs: Sequence[Labels]) -> Labels:
    """Every element depends on its own element of the input alone."""
    return inputs[0]


def joins(atoms: Atoms, network: Network, node: Node, inputs: Sequence[Labels]) -> Labels:
    """Every element depends on the same element of all inputs: they leave together."""
    first, second = inputs
    atoms.unite(first, second)
    return np.broadcast_arrays(first, second)[0]


def linear(atoms: Atoms, network: Network, node: Node, inputs: Sequence[Labels]) -> Labels:
    """Reads the last axis and defines new channels there; channels on another axis pass."""
    (x,) = inputs
    if varying(x) and varying(x)[-1] != x.ndim - 1:
        return x
    _along(atoms, node, x, (x.ndim - 1,))
    return atoms.fresh((*[1] * (x.ndim - 1), node.shape[-1]))


def conv(atoms: Atoms, network: Network, node: Node, inputs: Sequence[Labels]) -> Labels:
    """Reads axis 0 and defines new channels; depthwise passes them; other groups shrink in step."""
    x = _along(atoms, node, inputs[0], (0,))
    groups, out = cast(int, node.attributes["groups"]), node.shape[0]
    channels = np.broadcast_to(x.reshape(-1), network.shape_of(node.inputs[0])[:1])
    if groups == 1:
        labels = atoms.fresh((out,))
    elif is_depthwise(network, node):
        labels = np.repeat(channels, out // groups)
    else:
        by_group = channels.reshape(groups, -1)
        atoms.unite(by_group, by_group[:1])
        labels = np.tile(atoms.fresh((out // groups,)), groups)
    return labels.reshape(-1, *[1] * (len(node.shape) - 1))


def pools(atoms: Atoms, network: Network, node: Node, inputs: Sequence[Labels]) -> Labels:
    """Windows over the axes after the first: channels on axis 0 pass."""
    return _along(atoms, node, inputs[0], (0,))


def mean(atoms: Atoms, network: Network, node: Node, inputs: Sequence[Labels]) -> Labels:
    """Channels pass, unless the mean runs over them: its divisor would change."""
    (x,), axes = inputs, cast(Shape, node.attributes["axes"])
    if set(axes) & set(varying(x)):
        return _pinned(atoms, node, [x], "averages over channels")
    return x if node.attributes["keepdims"] else x.squeeze(axes)


def softmax(atoms: Atoms, network: Network, node: Node, inputs: Sequence[Labels]) -> Labels:
    """Channels pass, unless the normalisation runs over them."""
    (x,) = inputs
    if cast(int, node.attributes["axis"]) in varying(x):
        atoms.pin(x, _because(node, "normalises over channels"))
    return x


def layer_norm(atoms: Atoms, network: Network, node: Node, inputs: Sequence[Labels]) -> Labels:
    """Channels pass, unless the statistics run over them."""
    (x,) = inputs
    spanned = network.parameters_of(node)["weight"].ndim
    if any(axis >= x.ndim - spanned for axis in varying(x)):
        atoms.pin(x, _because(node, "normalises over channels"))
    return x


def batched(atoms: Atoms, network: Network, node: Node, inputs: Sequence[Labels]) -> Labels:
    """Matrix products over the last two axes: channels on the axes before (attention heads) leave together."""
    leading = tuple(range(len(node.shape) - 2))
    heads = [_along(atoms, node, x, leading) for x in inputs]
    for other in heads[1:]:
        atoms.unite(heads[0], other)
    return np.broadcast_arrays(*heads)[0]


def constant(atoms: Atoms, network: Network, node: Node, inputs: Sequence[Labels]) -> Labels:
    """Each element of a stored value is free to leave with what it meets."""
    return atoms.fresh(node.shape)


def transpose(atoms: Atoms, network: Network, node: Node, inputs: Sequence[Labels]) -> Labels:
    """Labels move with their axes."""
    return inputs[0].transpose(cast(Shape, node.attributes["permutation"]))


def reshape(atoms: Atoms, network: Network, node: Node, inputs: Sequence[Labels]) -> Labels:
    """Labels move with their elements."""
    if inputs[0].size == 1:
        return inputs[0].reshape([1] * len(node.shape))
    return np.broadcast_to(inputs[0], network.shape_of(node.inputs[0])).reshape(node.shape)


def sliced(atoms: Atoms, network: Network, node: Node, inputs: Sequence[Labels]) -> Labels:
    """Selects labels. Under a stride, the channels of a step leave together, so that a stride is left."""
    (x,) = inputs
    starts, stops, steps = (cast(Shape, node.attributes[k]) for k in ("starts", "stops", "steps"))
    for axis in varying(x):
        covered = np.arange(starts[axis], stops[axis])
        taken = covered - (covered - starts[axis]) % steps[axis]
        atoms.unite(x.take(covered, axis), x.take(taken, axis))
        x = x.take(np.unique(taken), axis)
    return x


def pad(atoms: Atoms, network: Network, node: Node, inputs: Sequence[Labels]) -> Labels:
    """Channels that hold a constant are new atoms; a border inside a channel belongs to that channel."""
    (x,), shape = inputs, network.shape_of(node.inputs[0])
    padding = cast(Shape, node.attributes["padding"])
    padded = [axis for axis in range(x.ndim) if padding[axis] or padding[axis + x.ndim]]
    if x.size == 1 and len(padded) == 1:  # a value that stays whole, widened by constant channels
        x = np.broadcast_to(x, tuple(n if axis in padded else 1 for axis, n in enumerate(shape)))
        along = padded
    else:
        along = [axis for axis in padded if axis in varying(x)]
    for axis in along:
        sizes = (padding[axis], padding[axis + x.ndim])
        before, after = (atoms.fresh((*x.shape[:axis], n, *x.shape[axis + 1 :])) for n in sizes)
        x = np.concatenate([before, x, after], axis)
    return x


def concat(atoms: Atoms, network: Network, node: Node, inputs: Sequence[Labels]) -> Labels:
    """Labels side by side."""
    axis = cast(int, node.attributes["axis"])
    sizes = [network.shape_of(name)[axis] for name in node.inputs]
    common = [max(sizes_of) for sizes_of in zip(*(x.shape for x in inputs), strict=True)]
    parts = [np.broadcast_to(x, (*common[:axis], n, *common[axis + 1 :])) for x, n in zip(inputs, sizes, strict=True)]
    return np.concatenate(parts, axis)


def _along(atoms: Atoms, node: Node, labels: Labels, axes: tuple[int, ...]) -> Labels:
    """Labels that vary along `axes` at most: what differs along other axes leaves together."""
    if varying(labels) and not set(axes) & set(varying(labels)):
        return _pinned(atoms, node, [labels], "mixes channels")
    first = first_along(labels, axes)
    atoms.unite(labels, first)
    return first


def _pinned(atoms: Atoms, node: Node, inputs: Sequence[Labels], reason: str) -> Labels:
    for labels in inputs:
        atoms.pin(labels, _because(node, reason))
    return atoms.pinned(len(node.shape), _because(node, reason))


def _because(node: Node, reason: str) -> str:
    return f"{node.op} at node {node.name!r} {reason}"


CHANNEL_RULES: dict[str, Rule] = {
    "linear": linear,
    "conv": conv,
    "constant": constant,
    **dict.fromkeys(("batch_norm", "scale", "divide", "shift"), passes),
    **dict.fromkeys(("relu", "leaky_relu", "clip", "sigmoid", "tanh", "erf", "gelu", "silu"), passes),
    **dict.fromkeys(("hardsigmoid", "hardswish"), passes),
    **dict.fromkeys(("add", "subtract", "multiply"), joins),
    **dict.fromkeys(("max_pool", "average_pool"), pools),
    **dict.fromkeys(("matmul", "attention"), batched),
    "mean": mean,
    "softmax": softmax,
    "layer_norm": layer_norm,
    "transpose": transpose,
    "reshape": reshape,
    "slice": sliced,
    "pad": pad,
    "concat": concat,
}
