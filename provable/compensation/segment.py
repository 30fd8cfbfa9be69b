"""A segment: the part of a network between values that are given and one value that it should reproduce.

A residual block is one (from the block's input to its sum), a plain producer -> consumer pair is one. The nodes are
all that lie on a path from the start nodes to the end; what they read from outside are the segment's sources.

Theory: theory_notes/refinement.md. Not claimed: anything about the network behind the end.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from provable.compensation.target import ancestors
from verify.network.graph import Network, Node
from verify.network.module import STEPS

TRAINABLE = {
    "linear": ("weight", "bias"), "conv": ("weight", "bias"), "batch_norm": ("weight", "bias"), "shift": ("value",),
}  # fmt: skip
ACTIVATIONS = frozenset({"relu", "leaky_relu", "clip", "sigmoid", "tanh", "gelu", "silu", "hardsigmoid", "hardswish"})


@dataclass(frozen=True)
class Segment:
    """Nodes between cut values.

    Attributes:
        nodes: names, in network order.
        sources: names of the values read from outside, in network order.
        end: the value to reproduce.
        activation: the pointwise non-linearity that is the end's only reader, or None; errors are judged behind it.
    """

    nodes: tuple[str, ...]
    sources: tuple[str, ...]
    end: str
    activation: str | None


def segment_between(network: Network, start: Iterable[str], end: str) -> Segment:
    """The segment from the start nodes to `end`."""
    before, after = ancestors(network, end), _descendants(network, start)
    nodes = [node for node in network if node.name in before and node.name in after]
    inside = {node.name for node in nodes}
    sources = dict.fromkeys(source for node in nodes for source in node.inputs if source not in inside)
    order = [network.input, *(node.name for node in network)]
    readers = network.consumers()[end] if end != network.output else ()
    activation = readers[0].name if len(readers) == 1 and readers[0].op in ACTIVATIONS else None
    return Segment(tuple(n.name for n in nodes), tuple(n for n in order if n in sources), end, activation)


def is_closed(network: Network, segment: Segment) -> bool:
    """Whether nobody outside reads a value inside, the end apart: then its parameters may change together."""
    inside = set(segment.nodes)
    readers = network.consumers()
    private = all(reader.name in inside for name in segment.nodes if name != segment.end for reader in readers[name])
    return private and network.output not in inside - {segment.end}


def trainable(network: Network, segment: Segment) -> tuple[str, ...]:
    """Parameter keys of the segment's affine nodes that no node outside reads."""
    inside = set(segment.nodes)
    foreign = {key for node in network if node.name not in inside for key in node.parameters.values()}
    fixed = {key for node in network for role, key in node.parameters.items() if role not in TRAINABLE.get(node.op, ())}
    keys = [key for node in network if node.name in inside for key in node.parameters.values()]
    return tuple(key for key in dict.fromkeys(keys) if key not in foreign | fixed)


def run_segment(
    network: Network, segment: Segment, sources: Mapping[str, Tensor], parameters: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Every value of the segment for a batch: {name: (batch, *shape)}."""
    values = dict(sources)
    for node in _nodes(network, segment):
        roles = {role: parameters[key] for role, key in node.parameters.items()}
        values[node.name] = STEPS[node.op](node, network)([values[source] for source in node.inputs], roles)
    return values


def activated(network: Network, segment: Segment, value: Tensor) -> Tensor:
    """The end's value behind the activation that reads it."""
    if segment.activation is None:
        return value
    node = network.node(segment.activation)
    return STEPS[node.op](node, network)([value], {})


def _nodes(network: Network, segment: Segment) -> list[Node]:
    inside = set(segment.nodes)
    return [node for node in network if node.name in inside]


def _descendants(network: Network, start: Iterable[str]) -> frozenset[str]:
    found = set(start)
    for node in network:
        if found.intersection(node.inputs):
            found.add(node.name)
    return frozenset(found)
