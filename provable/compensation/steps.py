"""What one site of the sequential pass leaves behind, and how a later run takes it up again.

    step i = parameters that site i changed, keys that nodes read anew, slots chosen there, its record

The values behind a site depend on the inputs and on the parameters before it alone. So replaying the steps on the
starting network, and running on with the demands of the sites that are left, gives what an uninterrupted run gives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from verify.network.graph import Array, Network

if TYPE_CHECKING:
    from provable.compensation.sequential import LayerFit


@dataclass(frozen=True)
class Step:
    """One finished site.

    Attributes:
        parameters: key -> value, for every parameter that the site changed or added.
        roles: node -> (role -> key), for every node that reads other keys than before.
        kept: group -> slots, for every group chosen at the site.
        layer: the site's record.
    """

    parameters: Mapping[str, Array]
    roles: Mapping[str, Mapping[str, str]]
    kept: Mapping[str, tuple[int, ...]]
    layer: "LayerFit"


def step_between(before: Network, after: Network, kept: Mapping[str, tuple[int, ...]], layer: "LayerFit") -> Step:
    """The step from one network to another of the same nodes."""
    changed = {k: array for k, array in after.parameters.items() if array is not before.parameters.get(k)}
    roles = {
        new.name: dict(new.parameters)
        for old, new in zip(before, after, strict=True)
        if dict(old.parameters) != dict(new.parameters)
    }
    return Step(changed, roles, kept, layer)


def replayed(network: Network, steps: Sequence[Step]) -> Network:
    """The network after the steps."""
    for step in steps:
        nodes = tuple(
            replace(node, parameters=step.roles[node.name]) if node.name in step.roles else node for node in network
        )
        network = replace(network, nodes=nodes, parameters={**network.parameters, **step.parameters})
    return network


class Memory(Protocol):
    """Where steps are kept."""

    def steps(self) -> Sequence[Step]:
        """The steps that an earlier run finished, in order."""

    def keep(self, step: Step) -> None:
        """Another step is finished."""


class Forgetful:
    """Nothing is kept."""

    def steps(self) -> Sequence[Step]:
        """None."""
        return ()

    def keep(self, step: Step) -> None:
        """Ignored."""
