"""Sets of inputs and outputs: hyperrectangle, half-space, polytope (H-representation), complement.

All are closed and convex but the complement, which is open. They hold float64 numbers, taken as they are; nothing
here is rounded outward, because the survey's algorithms are reference implementations (theory_notes/survey.md).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from verify.errors import SpecificationError

Floats = NDArray[np.float64]


def read_only(values: ArrayLike, rank: int, name: str) -> Floats:
    """A finite float64 copy that nobody can change.

    Raises:
        SpecificationError: NaN, infinity, no entry, or another rank.
    """
    array = np.array(values, dtype=np.float64)
    if array.ndim != rank or not array.size:
        raise SpecificationError(f"{name} must be a non-empty array of rank {rank}, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise SpecificationError(f"{name} holds NaN or infinity")
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class Hyperrectangle:
    """``{v : lower <= v <= upper}``, both bounds ``(n,)``.

    Raises:
        SpecificationError: bounds of different lengths, not finite, or crossed.
    """

    lower: Floats
    upper: Floats
    kind: ClassVar[str] = "hyperrectangle"

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower", read_only(self.lower, 1, "lower bounds"))
        object.__setattr__(self, "upper", read_only(self.upper, 1, "upper bounds"))
        if self.lower.shape != self.upper.shape:
            raise SpecificationError(f"{self.lower.size} lower bounds, but {self.upper.size} upper bounds")
        if (self.lower > self.upper).any():
            i = int(np.argmax(self.lower > self.upper))
            raise SpecificationError(f"empty set: coordinate {i} has bounds [{self.lower[i]}, {self.upper[i]}]")

    @classmethod
    def around(cls, center: ArrayLike, radius: float) -> "Hyperrectangle":
        """The max-norm ball."""
        middle = np.asarray(center, dtype=np.float64)
        return cls(middle - radius, middle + radius)

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return self.lower.size

    @property
    def center(self) -> Floats:
        """Midpoint ``(n,)``."""
        return np.asarray((self.lower + self.upper) / 2)

    @property
    def radius(self) -> Floats:
        """Half-widths ``(n,)``."""
        return np.asarray((self.upper - self.lower) / 2)

    def rows(self) -> tuple[Floats, Floats]:
        """``(A, b)`` with ``A v <= b``: upper bounds first, then lower."""
        identity = np.eye(self.dimension)
        return np.vstack([identity, -identity]), np.concatenate([self.upper, -self.lower])

    def contains(self, v: Floats) -> bool:
        """Whether a float64 point lies inside, compared exactly."""
        return bool((self.lower <= v).all() and (v <= self.upper).all())


@dataclass(frozen=True, eq=False)
class Polytope:
    """``{v : normals v <= offsets}``, normals ``(k, n)``, offsets ``(k,)``.

    Raises:
        SpecificationError: shapes that do not fit, or numbers that are not finite.
    """

    normals: Floats
    offsets: Floats
    kind: ClassVar[str] = "polytope"

    def __post_init__(self) -> None:
        object.__setattr__(self, "normals", read_only(self.normals, 2, "normals"))
        object.__setattr__(self, "offsets", read_only(self.offsets, 1, "offsets"))
        if len(self.normals) != len(self.offsets):
            raise SpecificationError(f"{len(self.normals)} normals, but {len(self.offsets)} offsets")

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return int(self.normals.shape[1])

    def rows(self) -> tuple[Floats, Floats]:
        """``(A, b)`` with ``A v <= b``."""
        return self.normals, self.offsets

    def contains(self, v: Floats) -> bool:
        """Whether a float64 point satisfies every row as evaluated in float64."""
        return bool((self.normals @ v <= self.offsets).all())


@dataclass(frozen=True, eq=False)
class HalfSpace:
    """``{v : normal . v <= offset}``, normal ``(n,)``."""

    normal: Floats
    offset: float
    kind: ClassVar[str] = "half-space"

    def __post_init__(self) -> None:
        object.__setattr__(self, "normal", read_only(self.normal, 1, "normal"))
        object.__setattr__(self, "offset", float(read_only([self.offset], 1, "offset")[0]))

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return self.normal.size

    def rows(self) -> tuple[Floats, Floats]:
        """``(A, b)`` with one row."""
        return self.normal[None, :], np.array([self.offset])


@dataclass(frozen=True, eq=False)
class Complement:
    """Every point outside a closed convex set; the boundary of that set does not belong to it."""

    of: Hyperrectangle | Polytope | HalfSpace
    kind: ClassVar[str] = "complement"

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return self.of.dimension


InputSet = Hyperrectangle | Polytope
OutputSet = Hyperrectangle | Polytope | HalfSpace | Complement
INPUT_KINDS = (Hyperrectangle.kind, Polytope.kind)
OUTPUT_KINDS = (Hyperrectangle.kind, Polytope.kind, HalfSpace.kind, Complement.kind)


@dataclass(frozen=True, eq=False)
class AffineImage:
    """``{matrix v + offset : v in domain}``: one linear piece of a reach set, or a zonotope (domain a unit cube)."""

    domain: Polytope | Hyperrectangle
    matrix: Floats
    offset: Floats
