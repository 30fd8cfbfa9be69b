"""The largest element of a window, built from ReLU: ``max(p, q) = q + relu(p - q)``.

A window's maximum is a tournament in row-major order: best <- best + relu(next - best).
Theory: theory_notes/differential_zonotope.md, section 4.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from verify.formal.maps import Diagonal
from verify.formal.rules.activation import scaled_sum
from verify.formal.rules.rule import Affine, AffineStep, Arithmetic, Compiled, Rule, Side, Site, inverse, tensor
from verify.network.graph import Node, Shape
from verify.network.operations.affine import windows


class MaxPoolRule(Rule):
    """Largest element of each window: a tournament in row-major order of the window, padded positions skipped."""

    name = "max_pool"

    def compile(self, site: Site) -> Compiled:
        tables = [_window_table(side, node) for side, node in site.sides]
        first = _round(site, [table[:, 0] for table in tables], challenge=False)
        columns = zip(*(table[:, 1:].T for table in tables), strict=True)
        challenges = [_round(site, column, challenge=True) for column in columns]
        total = scaled_sum(site, site.first.name, [1.0, 1.0], 0.0)

        def run(arithmetic: Arithmetic[Any], inputs: Sequence[Any]) -> Any:
            best = arithmetic.affine(first, inputs)
            for challenge in challenges:
                rise = arithmetic.relu(arithmetic.affine(challenge, [inputs[0], best]))
                best = arithmetic.affine(total, [best, rise])
            return best

        return run


def _window_table(side: Side, node: Node) -> NDArray[np.int64]:
    """Stored positions ``(outputs, window)`` each output looks at, padded ones (-1) moved to the end."""
    shape, kernel = side.shape(node.inputs[0]), cast(Shape, node.attributes["kernel"])
    grid = inverse(side.order(node.inputs[0])).reshape(1, *shape).astype(np.float64)
    view = windows(node, grid, kernel, -1.0).reshape(side.size(node.name), -1).astype(np.int64)
    order = np.argsort(view < 0, axis=1, kind="stable")
    return np.take_along_axis(view, order, axis=1)[side.order(node.name)]


def _picked(side: Side, node: Node, column: NDArray[np.int64]) -> Diagonal:
    """``x[column]``, 0 where the column is padded: nothing is rounded."""
    coefficient = tensor(np.where(column >= 0, 1.0, 0.0))
    index = torch.from_numpy(np.maximum(column, 0))
    return Diagonal(coefficient, side.size(node.inputs[0]), index=index, roundings=0)


def _round(site: Site, columns: Sequence[NDArray[np.int64]], *, challenge: bool) -> AffineStep:
    """``x[column] - best`` (0 where padded), or just ``x[column]`` for the opening of the tournament."""
    sides = []
    for (side, node), column in zip(site.sides, columns, strict=True):
        maps = [_picked(side, node, column)]
        if challenge:
            minus = tensor(np.where(column >= 0, -1.0, 0.0))
            maps.append(Diagonal(minus, len(column), roundings=0))
        sides.append(Affine(tuple(maps)))
    return AffineStep(sides[0], sides[1] if len(sides) == 2 else None, None, site.kept(site.first.name))


MAX_POOL = MaxPoolRule()
