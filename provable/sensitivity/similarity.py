"""Channel similarity: the expected squared distance of two channels' activations, and the clustering it gives.

With batch norm, the activation of channel i is modelled as N(beta_i, gamma_i^2), independent between channels:

    before ReLU    E (x_i - x_j)^2 = (beta_i - beta_j)^2 + gamma_i^2 + gamma_j^2 - 2 rho |gamma_i gamma_j|,   rho = 0
    after ReLU     E (r_i - r_j)^2 = E r_i^2 + E r_j^2 - 2 E r_i E r_j,     b = beta, g = |gamma|,
                   E r = b Phi(b/g) + g phi(b/g),      E r^2 = (b^2 + g^2) Phi(b/g) + b g phi(b/g)

The measured variant (ours) takes E (x_i - x_j)^2 from the calibration inputs instead, correlations included. Distances
are divided by their layer's mean; agglomerative clustering (complete linkage) merges the closest, over all layers with
one threshold; one representative of every cluster stays (largest gamma, or largest energy), and the weights with which
the next layer reads the others are ADDED to its own.

Reference: Y. Zhang, Zhao, Ni, J. Zhang, Deng, "Exploiting Channel Similarity for Accelerating Deep Convolutional Neural
Networks", 2019, arXiv 1908.02620. There is no public code: the abstract fixes the idea, the closed forms are derived in
theory_notes/scores.md and the linkage and the normalisation are this project's choice. Not claimed: that close channels
can be merged without loss unless the distance is 0.
"""

from typing import cast

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from scipy.stats import norm

from provable.channels import ChannelGroup
from provable.compensation.consumers import Reading, blocks
from provable.compensation.moments import Matrix
from provable.compensation.patches import parts
from provable.errors import CalibrationError
from provable.method import Method
from provable.observe import Statistics
from provable.selection.finding import Finding, Inquiry
from verify.network.graph import Network


def by_model(inquiry: Inquiry) -> dict[str, Finding]:
    """Distances from batch norm's parameters alone; looks at no data."""
    return {g.name: clustered(*modelled(inquiry.network, g)) for g in inquiry.groups}


def by_measurement(inquiry: Inquiry) -> dict[str, Finding]:
    """Distances measured on the calibration inputs."""
    return {g.name: clustered(*measured(inquiry.network, inquiry.statistics, g)) for g in inquiry.groups}


def modelled(network: Network, group: ChannelGroup) -> tuple[Matrix, Matrix]:
    """(expected squared distances (slots, slots), |gamma| (slots,)) of the group's batch norm.

    Raises:
        CalibrationError: the group does not pass through exactly one batch norm.
    """
    if len(group.norms) != 1 or len(group.producers) != 1:
        raise CalibrationError(
            f"similarity reads the distribution of every channel from its batch norm, but group {group.name!r} passes "
            f"through {len(group.norms)} of them (file formats such as ONNX often fold them away): give the module "
            "itself, or take similarity-measured, which needs none"
        )
    node = network.node(group.norms[0])
    gamma, beta = (network.parameters[node.parameters[role]].astype(np.float64) for role in ("weight", "bias"))
    readers = network.consumers()[node.name]
    rectified = bool(readers) and all(reader.op == "relu" for reader in readers)
    index = [list(slot.positions[node.name]) for slot in group.slots]
    distances = [squared_distances(beta[p], gamma[p], rectified=rectified) for p in np.array(index).T]
    return cast(Matrix, np.mean(distances, axis=0)), np.array([np.abs(gamma[p]).sum() for p in index])


def squared_distances(beta: Matrix, gamma: Matrix, *, rectified: bool, correlation: Matrix | None = None) -> Matrix:
    """E (x_i - x_j)^2 for x_i ~ N(beta_i, gamma_i^2); zero on the diagonal.

    Args:
        beta, gamma: (c,) means, and standard deviations up to sign.
        rectified: of max(x, 0) instead of x.
        correlation: (c, c) between the x_i; None: independent. Not available behind a ReLU.
    """
    mean, square = _rectified(beta, np.abs(gamma)) if rectified else (beta, beta**2 + gamma**2)
    cross = np.outer(mean, mean)
    if correlation is not None:
        if rectified:
            raise CalibrationError("correlated channels behind a ReLU have no closed form here: measure them")
        cross = cross + correlation * np.outer(np.abs(gamma), np.abs(gamma))
    distances = np.maximum(square[:, None] + square[None, :] - 2.0 * cross, 0.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def _rectified(b: Matrix, g: Matrix) -> tuple[Matrix, Matrix]:
    """E max(x, 0) and E max(x, 0)^2 for x ~ N(b, g^2)."""
    safe = np.where(g > 0.0, g, 1.0)
    below, density = norm.cdf(b / safe), norm.pdf(b / safe)
    mean = np.where(g > 0.0, b * below + g * density, np.maximum(b, 0.0))
    square = np.where(g > 0.0, (b**2 + g**2) * below + b * g * density, np.maximum(b, 0.0) ** 2)
    return mean, square


def measured(network: Network, statistics: Statistics, group: ChannelGroup) -> tuple[Matrix, Matrix]:
    """(mean squared distances (slots, slots), energies (slots,)) at the consumers' inputs, over coordinates and inputs.

    Consumers that do not read all slots alike are left out; if that is all of them, all slots are equally far.
    """
    size = len(group.slots)
    distances, energies, seen = np.zeros((size, size)), np.zeros(size), 0
    for consumer in group.consumers:
        known = statistics.consumers[consumer.node]
        for part, moments in zip(parts(network, network.node(consumer.node)), known.moments, strict=True):
            index = blocks(part, Reading(group.name, consumer.positions))
            for column in () if index is None else index.T:
                gram = moments.gram[np.ix_(column, column)] / moments.count
                energy = np.diag(gram)
                distances += energy[:, None] + energy[None, :] - 2.0 * gram
                energies, seen = energies + energy, seen + 1
    if not seen:
        return np.ones((size, size)) - np.eye(size), np.ones(size)
    noise = 64.0 * np.finfo(np.float64).eps * (energies[:, None] + energies[None, :])
    return np.where(distances > noise, distances, 0.0) / seen, energies / seen


def clustered(squared: Matrix, scores: Matrix) -> Finding:
    """Agglomerative clustering; of two clusters that merge, the representative with the smaller score leaves.

    Args:
        squared: (slots, slots) squared distances.
        scores: (slots,) importance of a slot as a representative.
    """
    size = len(scores)
    if size == 1:
        return Finding(scores, np.zeros((0, 4)), ((0,), np.array([np.inf])))
    distances = np.sqrt((squared + squared.T) / 2.0)
    mean = float(distances.sum()) / (size * (size - 1))
    tree = np.asarray(linkage(squareform(distances / mean if mean > 0.0 else distances, checks=False), "complete"))
    heads, order = list(range(size)), list[int]()
    for first, second in tree[:, :2].astype(int):
        stays, leaves = heads[first], heads[second]
        if (scores[leaves], -leaves) > (scores[stays], -stays):
            stays, leaves = leaves, stays
        order.append(leaves)
        heads.append(stays)
    return Finding(scores, tree, ((*order, heads[-1]), np.array([*tree[:, 2], np.inf])))


_SOURCE = "Zhang, Zhao, Ni, Zhang, Deng 2019, arXiv 1908.02620"
METHODS = tuple(
    Method(
        name=name, summary=summary, granularity="channel", when="after training", criterion="redundancy", data=data,
        recovery="closed form", guarantee="none", reference=reference, cost=cost,
        use=f"provable compress --recipe {name}",
    )
    for name, summary, data, reference, cost in (
        ("similarity", "channels alike by their batch norms merge (hierarchical clustering)", "none", _SOURCE,
         "one clustering per layer, O(c^2 log c)"),
        ("similarity-measured", "channels alike on the inputs merge (hierarchical clustering)", "unlabelled",
         f"measured variant of this project, after {_SOURCE}", "one pass for moments, one clustering per layer"),
    )
)  # fmt: skip
