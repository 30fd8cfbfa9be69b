"""What pure decay does to a number under momentum, and in how many steps it vanishes.

    v <- beta v + c w,   w <- w - lr v          so that  w_{t+1} = (1 + beta - lr c) w_t - beta w_{t-1}

The larger root of x^2 - (1 + beta - lr c) x + beta is the factor per step; it is below 1 iff 0 < lr c < 2 (1 + beta).
Theory: theory_notes/training.md.
"""

import math

import numpy as np

from provable.errors import ScheduleError


def vanishing_steps(what: str, *, lr: float, pull: str, size: float, momentum: float, to: float) -> int:
    """Steps after which a number is `to` times its start (with momentum: asymptotically).

    Args:
        what: the number, for the message.
        lr, size, momentum: the rate, c and beta above.
        pull: the name of c, for the message.

    Raises:
        ScheduleError: it never gets there.
    """
    factor = float(np.abs(np.roots([1.0, lr * size - 1.0 - momentum, momentum])).max())
    if not 0 < lr * size < 2 * (1 + momentum):
        raise ScheduleError(
            f"with lr {lr:g}, {pull} {size:g} and momentum {momentum:g} {what} is multiplied by {factor:.6g} per step "
            f"and never vanishes; take 0 < lr * ({pull}) < 2 (1 + momentum)"
        )
    return max(1, math.ceil(math.log(to) / math.log(factor))) if factor else 1
