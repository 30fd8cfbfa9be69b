"""Upper bound on the mean of independent values in [0, 1] that uses nothing but their range.

    mu <= mean + sqrt( ln(1/delta) / (2n) )      with probability >= 1 - delta

Reference: Hoeffding, JASA 1963. Theory note: theory_notes/mean_bounds.md, section 1.
Not claimed: tightness; `betting` is smaller almost always.
"""

import math

from verify.network.graph import Array
from verify.statistical.bounded import pushed_up, unit_values
from verify.statistical.confidence import Level, exact


def hoeffding_upper(values: Array, confidence: Level) -> float:
    """Upper bound on the mean of the distribution of `values` ``(n,)`` in [0, 1], rounded up.

    Raises:
        DataError: no values, or one outside [0, 1].
    """
    x, delta = unit_values(values), float(1 - exact(confidence))
    return pushed_up(float(x.mean()) + math.sqrt(math.log(1.0 / delta) / (2 * len(x))))
