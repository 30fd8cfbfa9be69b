"""The rule "pair_backward": bounds of D = z[kept] - y at the output from linear functions of the input.

Before a ReLU is replaced by lines and planes, the bounds of its argument are sharpened by descents of their own, from
the first ReLU to the last; the forms of the pair say what is known before. All bounds hold at once, so they intersect.

Theory notes: backward_pair.md, exact_audit.md.
"""

from collections.abc import Callable, Mapping

import numpy as np

from verify.audit.descent import Descent, Pending, Planes, columns, curved, three
from verify.audit.exact import Array, Index, Mask, power
from verify.audit.form import Form
from verify.audit.rules import Bounds, sharpened
from verify.audit.transposed import Pair

COLUMN_BYTES = 2**21  # size of the coefficients that are carried together
Further = Callable[[Index], Mapping[int, Pending]]
START_BITS = 30  # coefficients 1 and -1 have this many digits behind the point, so that slopes do not round them away


class Backward:
    """Bounds of a pair on the boxes of x; `known` says what holds at every position and is sharpened on the way.

    `mixed`: where D is small for what z moves, per position; see `planes.two_planes`.
    """

    def __init__(self, pair: Pair, x: Form, known: list[Bounds], mixed: Mapping[int, Mask] | None = None) -> None:
        self.pair, self.x, self.known = pair, x, known
        self.planes = Planes(pair, known, mixed or {})

    def differences(self, position: int) -> tuple[Array, Array, int]:
        """Bounds of D at a position in units of 2^exponent; `known` is sharpened on the way."""
        for n, stage in enumerate(self.pair.stages[:position], start=1):
            source = stage.inputs[0]
            if stage.step.kind == "relu" and self.known[source].d is not None:
                if not self.pair.straight[source]:
                    self.known[source] = self._sharpened(source)
                if stage.aligned:
                    self.known[n] = sharpened(rectified(self.known[source], self.known[n]), self.pair.kept(n))
        everything = np.ones((self.pair.sizes[position][1], self.x.rem.shape[1]), dtype=bool)
        b = self._better(position, self.known[position], "d", everything, short=True)
        return self.from_input(position, b)

    def from_input(self, position: int, b: Bounds, further: Further | None = None) -> tuple[Array, Array, int]:
        """Bounds of D at a position by descents to the input, or those of b where they are better."""
        everything = np.ones((self.pair.sizes[position][1], self.x.rem.shape[1]), dtype=bool)
        b = self._better(position, b, "d", everything, further=further)
        _, _, (low, high) = three(b)
        return low, high, b.unit

    def _sharpened(self, source: int) -> Bounds:
        """Better bounds of the argument of a ReLU: all from the ReLU before, then those that matter from the input.

        That is z and y where a ReLU is curved, then D where one of the two is; nothing where both ReLUs give 0 already.
        """
        b, kept = self.known[source], self.pair.kept(source)
        z, y, _ = three(b)
        live = (z[1][kept] > 0) | (y[1] > 0)
        in_z = z[1] > 0
        in_z[kept] |= live
        for part, wanted in (("z", in_z), ("y", live), ("d", live)):
            b = self._better(source, b, part, wanted, short=True)
        b = sharpened(b, kept)
        b = self._better(source, b, "z", curved(b.z))
        b = sharpened(self._better(source, b, "y", curved(three(b)[1])), kept)
        z, y, _ = three(b)
        open_ = curved((z[0][kept], z[1][kept])) | curved(y)
        return sharpened(self._better(source, b, "d", open_), kept)

    def _better(
        self, source: int, b: Bounds, part: str, wanted: Mask, short: bool = False, further: Further | None = None
    ) -> Bounds:
        """Better bounds of elements of z, y or D: on every leaf of as many as on the leaf that wants most."""
        low, high = (end.copy() for end in getattr(b, part))
        wanted = wanted & (low < high)  # nothing is better than one number
        most = int(wanted.sum(axis=0).max(initial=0))
        if not most:
            return b
        chosen = np.argsort(~wanted, axis=0, kind="stable")[:most]
        at = chosen, np.arange(wanted.shape[1])
        upper, exponent = self._bound(source, part, chosen, short, further)
        upper = np.ceil(upper * power(exponent - b.unit))
        high[at] = np.minimum(high[at], upper[:, 0])
        low[at] = np.maximum(low[at], -upper[:, 1])
        ends = {"z": b.z, "y": b.y, "d": b.d, part: (low, high)}
        return Bounds(b.unit, ends["z"] or b.z, ends["y"], ends["d"])

    def _bound(
        self, position: int, part: str, chosen: Index, short: bool, further: Further | None
    ) -> tuple[Array, int]:
        """Upper bounds (elements, 2, leaves) of elements of z, y or D and of their negatives, and their exponent.

        `short`: not from the input, but from the results of the last ReLU before. `further`: coefficients of earlier
        values that may be added to those functions.
        """
        leaves = self.x.rem.shape[1]
        size = self.pair.sizes[position][0 if part == "z" else 1]
        together = max(1, COLUMN_BYTES // (16 * leaves * max(max(s) for s in self.pair.sizes)))
        found = []
        for first in range(0, len(chosen), together):
            some = chosen[first : first + together]
            body = np.zeros((size, len(some), 2, leaves))
            at = some, np.arange(len(some))[:, None]
            body[*at, 0, np.arange(leaves)], body[*at, 1, np.arange(leaves)] = power(START_BITS), -power(START_BITS)
            start = Pending(**{part: [columns(-START_BITS, body.reshape(size, -1, leaves))]})
            more = further(some) if further is not None else {}
            descent = Descent(self.planes, self.x, (2 * len(some), leaves), short)
            found.append(descent.bound(position, start, more))
        unit = min(exponent for _, exponent in found)
        joined = np.concatenate([values * power(exponent - unit) for values, exponent in found])
        return joined.reshape(len(chosen), 2, leaves), unit


def rectified(argument: Bounds, b: Bounds) -> Bounds:
    """Bounds of the results of a ReLU, from those of its arguments: it is monotone and moves no two numbers apart."""
    scale = power(argument.unit - b.unit)
    z, y, d = three(argument)
    old_z, old_y, old_d = three(b)
    ends = [tuple(np.maximum(e * scale, 0.0) for e in z), tuple(np.maximum(e * scale, 0.0) for e in y)]
    ends.append((np.minimum(d[0] * scale, 0.0), np.maximum(d[1] * scale, 0.0)))
    z, y, d = (_meet(new, old) for new, old in zip(ends, (old_z, old_y, old_d), strict=True))
    return Bounds(b.unit, z, y, d)


def _meet(a: tuple[Array, ...], b: tuple[Array, Array]) -> tuple[Array, Array]:
    """Integers inside both intervals, the first of which may have fractions."""
    return np.maximum(np.floor(a[0]), b[0]), np.minimum(np.ceil(a[1]), b[1])
