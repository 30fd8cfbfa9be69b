"""Sensitivity of single weights: the largest share of its class's sum that a weight ever makes up.

A class is the weights of one sign in one filter. With |w|, a+ = max(a, 0), a- = max(-a, 0) and the class's sums
z^t(u) = sum_k |w_k| a^t_k(u) for t = +, -  at position u of an image:

    s_j = max over images, positions u and t of  |w_j| a^t_j(u) / z^t(u),    0/0 := 0       T = sum over the class
    mean variant: the MEAN over positions instead of the maximum (SiPP's deterministic ranking; no bound)

Behind a ReLU a- = 0, and the classes are the published ones. Reference: Baykal, Liebenwein, Gilitschenski, Feldman,
Rus, CoreNet (ICLR 2019, arXiv 1804.05345) and SiPP (SIAM J. Math. Data Science 2022, arXiv 1910.05422). Theory note:
weight_coresets.md. Not claimed: anything about inputs that were not measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from provable.compensation.collect import images_at_a_time
from provable.compensation.moments import Matrix
from provable.compensation.patches import Part, parts, unfold
from provable.execution import Run
from verify.network.graph import Network, Node

CELLS = 1 << 22
"""Contributions held at once."""


@dataclass(frozen=True)
class Layer:
    """One part of a linear or conv node (a plain one has a single part).

    Attributes:
        node, part: which weights.
        weight: (f, d) float64.
        largest: (f, d) sensitivities s, by the maximum over positions.
        average: (f, d) the same by the mean over positions.
        mean: (d,) mean of the unfolded input.
        cancellation: (f,) mean over images and positions of sum |w a| / |sum w a|, 0/0 := 1; infinite where some sum
            cancels exactly.
        positions: output positions of one image.
        images: images behind it.
        dead: (f,) whether the filter's sums were 0 on every image.
    """

    node: str
    part: Part
    weight: Matrix
    largest: Matrix
    average: Matrix
    mean: Matrix
    cancellation: Matrix
    positions: int
    images: int
    dead: NDArray[np.bool_]

    @property
    def classes(self) -> NDArray[np.bool_]:
        """(2, f, d): membership in the class of positive and of negative weights of each filter."""
        return np.stack([self.weight > 0.0, self.weight < 0.0])

    @property
    def totals(self) -> Matrix:
        """(2, f) total sensitivities T."""
        return np.asarray((self.classes * self.largest).sum(-1))

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(2, f) weights per class."""
        return np.asarray(self.classes.sum(-1), dtype=np.int64)


def layers_of(network: Network, inputs: Tensor, names: list[str]) -> Iterator[Layer]:
    """The named linear and conv nodes, measured on the inputs, in network order."""
    run = Run(network, inputs, [network.node(name).inputs[0] for name in names])
    for name in names:
        node = network.node(name)
        x = run.take(node.inputs[0]).numpy()
        for part in parts(network, node):
            yield _measured(network, node, part, x)


def _measured(
    network: Network, node: Node, part: Part, x: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"
) -> Layer:
    raw = network.parameters[node.parameters["weight"]].astype(np.float64)
    weight = raw[part.rows].reshape(-1, part.dimension)
    largest, average = np.zeros_like(weight), np.zeros_like(weight)
    mean, ratios, seen = np.zeros(part.dimension), np.zeros(len(weight)), np.zeros(len(weight), dtype=bool)
    step, columns = images_at_a_time(network, node, part), 0
    for start in range(0, len(x), step):
        images = x[start : start + step]
        patches = unfold(node, part, raw.shape[2:], images)  # (d, images x positions)
        columns += patches.shape[1]
        mean += patches.sum(1)
        absolute, plain = np.abs(weight) @ np.abs(patches), np.abs(weight @ patches)
        seen |= absolute.any(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios += np.where(absolute == 0.0, 1.0, absolute / plain).sum(1)
        for image in patches.reshape(len(patches), len(images), -1).transpose(1, 0, 2):
            largest_here, average_here = weight_shares(weight, image)
            np.maximum(largest, largest_here, out=largest)
            np.maximum(average, average_here, out=average)
    return Layer(
        node.name, part, weight, largest, average, mean / columns, ratios / columns, columns // len(x), len(x), ~seen
    )


def weight_shares(weight: Matrix, patches: Matrix) -> tuple[Matrix, Matrix]:
    """Largest and mean share of every weight in its class's sums, for one image.

    Args:
        weight: (f, d).
        patches: (d, positions).

    Returns:
        Two arrays (f, d): maximum over positions and signs of the activation; larger of the signs' means.
    """
    size = np.abs(weight)
    largest, average = np.zeros_like(weight), np.zeros_like(weight)
    for sign in (weight > 0.0, weight < 0.0):
        own = np.where(sign, size, 0.0)
        for active in (np.maximum(patches, 0.0), np.maximum(-patches, 0.0)):
            if not active.any():
                continue
            sums = own @ active  # (f, positions)
            inverse = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0.0)
            peak = _largest_product(inverse, active)
            np.maximum(largest, np.minimum(own * peak, 1.0), out=largest)
            np.maximum(average, own * (inverse @ active.T) / patches.shape[1], out=average)
    return largest, average


def _largest_product(inverse: Matrix, active: Matrix) -> Matrix:
    """max over u of inverse[i, u] active[j, u], (f, d)."""
    found = np.empty((len(inverse), len(active)))
    left, right = torch.from_numpy(inverse), torch.from_numpy(active)
    step = max(1, CELLS // active.size)
    for start in range(0, len(inverse), step):
        chunk = left[start : start + step]
        found[start : start + step] = (chunk[:, None, :] * right[None]).amax(-1).numpy()
    return found
