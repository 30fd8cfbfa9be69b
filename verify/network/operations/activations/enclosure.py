"""Ranges of functions that are monotone between known extremes."""

from collections.abc import Callable, Sequence

import numpy as np

from verify.network.graph import Array

_LIBRARY = 2.0**-44  # assumed accuracy of the elementary functions of numpy and scipy, relative and absolute
_NEAR, _ROOM = 1e-6, 1e-9  # the places of extremes and their values are given to 1e-10


def widened(lower: Array, upper: Array) -> tuple[Array, Array]:
    """Room for the error of the library's elementary functions."""
    return lower - (np.abs(lower) + 1.0) * _LIBRARY, upper + (np.abs(upper) + 1.0) * _LIBRARY


def increasing(function: Callable[[Array], Array], lower: Array, upper: Array) -> tuple[Array, Array]:
    """Range of an increasing function on ``[lower, upper]``, rounded outward."""
    return widened(function(lower), function(upper))


def turning(
    function: Callable[[Array], Array], lower: Array, upper: Array, extremes: Sequence[tuple[float, float]]
) -> tuple[Array, Array]:
    """Range on ``[lower, upper]`` of a function with extremes ``(at, value)`` between monotone parts, outward."""
    ends = function(lower), function(upper)
    low, high = np.minimum(*ends), np.maximum(*ends)
    for at, value in extremes:
        near = (lower <= at + _NEAR) & (upper >= at - _NEAR)
        low = np.where(near, np.minimum(low, value - _ROOM), low)
        high = np.where(near, np.maximum(high, value + _ROOM), high)
    return widened(low, high)
