"""Elementary symmetric polynomials of non-negative numbers, as logarithms.

    e_r(x) = sum over the r-element subsets S of prod_{i in S} x_i
    e_r(x_1..x_n) = e_r(x_1..x_{n-1}) + x_n e_{r-1}(x_1..x_{n-1})

All terms are non-negative: nothing cancels, and logarithms keep widths in the thousands from over- and
underflowing.
"""

import numpy as np

from provable.sampling.design import Array


def log_elementary_table(values: Array, order: int) -> Array:
    """``(n + 1, order + 1)``: entry [i, r] = log e_r of the first i values (-inf where e_r = 0)."""
    with np.errstate(divide="ignore"):
        logs = np.log(values)
    table = np.full((values.size + 1, order + 1), -np.inf)
    table[:, 0] = 0.0
    for i, log_value in enumerate(logs):
        table[i + 1, 1:] = np.logaddexp(table[i, 1:], table[i, :-1] + log_value)
    return table


def log_elementary(values: Array, order: int) -> Array:
    """``(order + 1,)``: log e_0, ..., log e_order of all values."""
    return np.asarray(log_elementary_table(values, order)[-1])


def log_leave_one_out(values: Array, order: int) -> Array:
    """``(n,)``: log e_order of the values without the i-th, for each i; no division, hence no cancellation."""
    before = log_elementary_table(values, order)[:-1]
    after = log_elementary_table(values[::-1], order)[:-1][::-1]
    logs = before + after[:, ::-1]
    peak = logs.max(axis=1)
    finite = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(finite + np.log(np.exp(logs - finite[:, None]).sum(axis=1)))


def residual_shares(values: Array) -> Array:
    """``(n, n)``: entry [r - 1, i] = x_i e_r(x without i) / e_r(x) for positive values, all sizes r at once in O(n^2).

    With t_r = x_i e_{r-1}(x without i) / e_r(x) the entry is x_i (1 - t_r), and t_{r+1} = f_r (1 - t_r) with
    f_r = x_i e_r / e_{r+1}, which grows with r. Where f_r <= 1 the recursion is run upwards, elsewhere, as
    1 - t_r = t_{r+1} / f_r, downwards from t_n = 1: errors shrink in both directions. What remains is of the order
    of the roundoff of the largest value, as in the eigenvalues that are put in.
    """
    logs = log_elementary(values, values.size)
    with np.errstate(over="ignore"):
        factors = np.exp(np.log(values) + (logs[:-1] - logs[1:])[:, None])  # [r, i] = f_r
    upward = factors <= 1.0
    left = np.ones_like(factors)  # [r, i] = 1 - t_r
    for r in range(values.size - 1):
        left[r + 1] = np.where(upward[r], 1.0 - factors[r] * left[r], left[r + 1])
    taken = np.ones(values.size)
    shares = np.zeros_like(factors)
    for r in range(values.size - 1, 0, -1):
        left_r = np.where(upward[r - 1], left[r], np.minimum(taken / factors[r], 1.0))
        shares[r - 1], taken = values * left_r, 1.0 - left_r
    return shares
