"""Functionality: filters that look for the same thing are redundant, and of those the least contributing leave first.

    1  activation maximisation    X*_f = argmax over X in the inputs' box of  A_f(X) - penalty || X - mean ||^2 / d
    2  clusters                   of a layer's filters by the distance of their X* (average linkage)
    3  contribution               mean over images and positions of | dP_y / dA_f |
    4  order of removal           all members of a cluster but the most contributing one, then what is left

A_f is the mean of filter f's map before its activation function, P_y the probability of the label. A cluster of n
filters may lose n - 1 before any unique filter leaves, so the ratio grows with the cluster.

Reference: Qin, Yu, Liu, Chen, "Functionality-Oriented Convolutional Filter Pruning", 2018/2019, arXiv 1810.07322. There
is no public code and the paper was not at hand: the four steps are its idea, every constant here is this project's.
Theory note: scores.md. Not claimed: that X* is a global maximum.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist
from torch import Tensor

from provable.channels import ChannelGroup
from provable.compensation.moments import Matrix
from provable.compensation.target import ancestors
from provable.method import Method
from provable.selection.by_similarity import clusters
from provable.selection.finding import Finding, Inquiry, Labels
from verify.network.graph import Network
from verify.network.module import STEPS, NetworkModule

STEPS_UP, RATE, PENALTY = 24, 0.25, 0.05
ALIKE = 0.1
"""Merge height, relative to the layer's mean, up to which two filters look for the same thing. Larger values (0.2 or
more, or a cut at the widest gap between heights) cost accuracy on the digits network."""
BATCH = 32
IMAGES = 128
"""Images behind the contributions, the first ones."""


def by_functionality(inquiry: Inquiry) -> dict[str, Finding]:
    """Clusters by what maximises each filter, contributions from labels."""
    labels = inquiry.required_labels("functionality")
    values = {group.name: feature(group) for group in inquiry.groups}
    scores = contributions(inquiry.network, inquiry.groups, inquiry.inputs[:IMAGES], labels[:IMAGES])
    start = noise(inquiry.inputs, inquiry.generator)
    found = {}
    for group in inquiry.groups:
        images = maximisers(inquiry.network, group, values[group.name], inquiry.inputs, start)
        found[group.name] = ordered(scores[group.name], images.reshape(len(images), -1).double().numpy())
    return found


def feature(group: ChannelGroup) -> str:
    """The value whose maps are the group's activations before their non-linearity: its first norm, or producer."""
    return (*group.norms, *group.producers)[0]


def noise(inputs: Tensor, generator: np.random.Generator) -> Tensor:
    """One random start for all filters, (1, *input_shape), so that equal filters climb equally."""
    drawn = torch.from_numpy(generator.standard_normal(inputs.shape[1:]).astype(np.float32))
    low, high = inputs.amin(0), inputs.amax(0)
    return (inputs.mean(0) + 0.5 * inputs.std() * drawn).clamp(low, high)[None]


def maximisers(network: Network, group: ChannelGroup, value: str, inputs: Tensor, start: Tensor) -> Tensor:
    """X* of every slot, (slots, *input_shape), by gradient ascent with steps of equal size within the inputs' box."""
    part = _up_to(network, value)
    low, high, mean, spread = inputs.amin(0), inputs.amax(0), inputs.mean(0), float(inputs.std()) or 1.0
    found = []
    for first in range(0, len(group.slots), BATCH):
        slots = group.slots[first : first + BATCH]
        x = start.expand(len(slots), *start.shape[1:]).clone()
        for step in range(STEPS_UP):
            x.requires_grad_(True)
            aim = activations(part(x), [s.positions[value] for s in slots], group.axes[value]).diagonal().sum()
            aim = aim - PENALTY * ((x - mean) / spread).square().flatten(1).mean(1).sum()
            (slope,) = torch.autograd.grad(aim, x)
            size = slope.flatten(1).square().mean(1).sqrt().clamp(min=1e-20).view(-1, *[1] * (x.ndim - 1))
            rate = RATE * spread * (1.0 - step / STEPS_UP)
            x = (x.detach() + rate * slope / size).clamp(low, high)
        found.append(x)
    return torch.cat(found)


def activations(value: Tensor, positions: Sequence[Sequence[int]], axis: int) -> Tensor:
    """A_f for a batch of values (batch, *shape): mean over each slot's elements, (batch, slots)."""
    maps = value.movedim(1 + axis, 1).flatten(2) if value.ndim > 2 else value[:, :, None]
    return torch.stack([maps[:, list(p)].flatten(1).mean(1) for p in positions], dim=1)


def contributions(
    network: Network, groups: Sequence[ChannelGroup], inputs: Tensor, labels: Labels
) -> Mapping[str, Matrix]:
    """Mean of |dP_y/dA_f| over images and positions, per group (slots,)."""
    module = NetworkModule(network).requires_grad_(False)
    names = [feature(group) for group in groups]
    totals = {group.name: np.zeros(len(group.slots)) for group in groups}
    for first in range(0, len(inputs), BATCH):
        y = torch.from_numpy(labels[first : first + BATCH])
        values = _all_values(network, module, inputs[first : first + BATCH])
        probability = values[network.output].softmax(1).gather(1, y[:, None]).sum()
        slopes = torch.autograd.grad(probability, [values[n] for n in names], allow_unused=True)
        for group, name, slope in zip(groups, names, slopes, strict=True):
            if slope is not None:
                where = [s.positions[name] for s in group.slots]
                totals[group.name] += activations(slope.abs(), where, group.axes[name]).sum(0).double().numpy()
    return {name: total / len(inputs) for name, total in totals.items()}


def ordered(scores: Matrix, images: Matrix) -> Finding:
    """Redundant slots first, each tier by contribution. Prices: tier + share, share = s / (s + layer's mean)."""
    size = len(scores)
    if size == 1:
        return Finding(scores, np.zeros((0, 4)), ((0,), np.array([np.inf])))
    tree = np.asarray(linkage(pdist(images), "average"))
    tier = np.zeros(size)
    for members in clusters(tree, groups_left(tree[:, 2])):
        tier[max(members, key=lambda slot: (scores[slot], -slot))] = 1.0
    mean = float(scores.mean()) or 1.0
    prices = tier + scores / (scores + mean)
    order = sorted(range(size), key=lambda slot: (prices[slot], -slot))
    return Finding(scores, tree, (tuple(order), prices[order]))


def groups_left(heights: Matrix) -> int:
    """Number of clusters when filters count as one below `ALIKE` times the tree's mean merge height."""
    limit = ALIKE * float(heights.mean())
    return len(heights) + 1 - int(np.sum(heights <= limit))


def _up_to(network: Network, value: str) -> NetworkModule:
    """The network that ends in `value`."""
    wanted = ancestors(network, value)
    nodes = tuple(node for node in network if node.name in wanted)
    keys = {key for node in nodes for key in node.parameters.values()}
    parameters = {key: array for key, array in network.parameters.items() if key in keys}
    return NetworkModule(Network(network.input, network.input_shape, nodes, value, parameters)).requires_grad_(False)


def _all_values(network: Network, module: NetworkModule, x: Tensor) -> dict[str, Tensor]:
    """Every value for a batch, differentiable with respect to each."""
    values = {network.input: x.clone().requires_grad_(True)}
    for node in network:
        roles = {role: module.parameter(key) for role, key in node.parameters.items()}
        values[node.name] = STEPS[node.op](node, network)([values[s] for s in node.inputs], roles)
    return values


METHODS = (
    Method(
        name="functionality", summary="filters that the same input maximises are redundant; least contributing leave",
        granularity="channel", when="after training", criterion="redundancy", data="labelled", recovery="closed form",
        guarantee="none", reference="Qin, Yu, Liu, Chen 2018/2019, arXiv 1810.07322 (idea; constants of this project)",
        cost=f"{STEPS_UP} forward and backward passes per filter", use="provable compress --recipe functionality",
    ),
)  # fmt: skip
