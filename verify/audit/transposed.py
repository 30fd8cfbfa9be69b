"""Transposed linear maps: from coefficients of a map's results to coefficients of what it reads.

    sum_o c_o (M x)_o = sum_i (M' c)_i x_i

Theory note: exact_audit.md.
"""

import numpy as np

from verify.audit.exact import LARGEST, LIMB, Resource, largest, power
from verify.audit.lift import Affine
from verify.audit.linear import LinearMap, linear_map

LARGEST_MAP = 2**23  # entries


def transposed(affine: Affine | None, outputs: int, inputs: int) -> LinearMap | None:
    """The matrix of a map, rows and columns exchanged: coefficients of its results to coefficients of its inputs."""
    if affine is None or outputs * inputs > LARGEST_MAP:
        return None
    linear = affine.linear
    groups, positions, window = linear.taps.shape
    shape = (groups, linear.rows, positions, window)
    weights = linear.both[:, : linear.rows] * power(LIMB) + linear.both[:, linear.rows :]
    errors = np.broadcast_to(linear.loss[:, :, None], weights.shape)
    read = np.broadcast_to(linear.taps[:, None], shape).reshape(-1)  # -1, no element, is the row that is dropped
    result = np.broadcast_to(np.arange(outputs).reshape(shape[:3])[..., None], shape).reshape(-1)
    matrix, radius = np.zeros((inputs + 1, outputs)), np.zeros((inputs + 1, outputs))
    np.add.at(matrix, (read, result), np.broadcast_to(weights[:, :, None], shape).reshape(-1))
    np.add.at(radius, (read, result), np.broadcast_to(errors[:, :, None], shape).reshape(-1))
    if affine.place is not None:
        matrix, radius = matrix[:, affine.place], radius[:, affine.place]
    if not max(largest(np.abs(matrix)), largest(radius)) < LARGEST:
        raise Resource("a transposed map leaves the exact range")
    taps = np.arange(outputs, dtype=np.int64)[None, None]
    return linear_map(matrix[None, :-1], radius[None, :-1], linear.exponent, taps, outputs)
