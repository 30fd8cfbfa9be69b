"""Inclusion probabilities of a design without replacement: as proportional to the scores as a probability can be.

    pi_j = min(1, t s_j)   with the t at which   sum_j pi_j = count

With the scores in falling order, h of them are certain, h the smallest number for which
(count - h) s_{h+1} <= s_{h+1} + s_{h+2} + ...; then t = (count - h) / (s_{h+1} + s_{h+2} + ...).
Theory note: theory_notes/without_replacement.md.
"""

import numpy as np

from provable.sampling.design import Array, checked_scores, first_of_support


def inclusion_probabilities(scores: Array, count: int) -> Array:
    """``(c,)`` in [0, 1], sum `count`, never decreasing in the score.

    When fewer than `count` scores are positive, those channels are certain and the first channels of score
    0 are certain too, up to `count`.
    """
    s = checked_scores(scores, count)
    if count >= np.count_nonzero(s):
        certain = np.zeros(s.size)
        certain[first_of_support(s, count)] = 1.0
        return certain
    order = np.argsort(-s, kind="stable")
    falling = s[order] / s.max()
    rest = np.cumsum(falling[::-1])[::-1]  # rest[h] = falling[h] + falling[h+1] + ..., smallest terms first
    left = count - np.arange(count)
    h = int(np.argmax(left * falling[:count] <= rest[:count]))
    pi = np.empty(s.size)
    pi[order[:h]] = 1.0
    pi[order[h:]] = np.minimum(1.0, (count - h) * (falling[h:] / rest[h]))
    return pi
