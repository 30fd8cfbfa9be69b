"""Named compensations: what happens to the weights of layers that lose inputs. A new one is one entry here.

least_squares   closed form, ridge by held-out loss
two_sided       the producers' weights as well
two_sweeps      two-sided, and then the same again with the channels and everything behind a layer as they are now
refine          two-sided, then gradient steps on each block
refine_network  two-sided, then gradient steps on the whole compact network
near            least squares with the largest ridge that costs little: weights stay close, proofs profit
bounded         least squares, every row changes by at most half of its norm           (convex program)
signs           least squares, weights keep their signs                                (convex program)
norm            least squares, no row grows                                            (convex program)
minimax         least squares, then the smallest largest deviation on calibration      (linear programs)
batch_norm      weights stay, batch-norm statistics are measured again
none            weights stay
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from provable.compensation.constrained import Constrained
from provable.compensation.near_ridge import NearRidge
from provable.compensation.ridge import Solver, fit_held_out


@dataclass(frozen=True)
class Strategy:
    """A compensation.

    Attributes:
        solver: fits a layer; None: weights stay as they are.
        producers: whether layers that produce removed channels are fitted, too.
        polish: "refine", "minimax" or nothing: what follows each fit.
        norms: whether batch-norm statistics are measured again.
        network: whether the compact network is refined as a whole at the end.
        images: how many of the inputs statistics, choice and fits look at, the first ones; None: all. Where a descent
            on all of them follows, they are only its start.
        sweeps: how often all layers are fitted.
    """

    solver: Solver | None = fit_held_out
    producers: bool = False
    polish: str = ""
    norms: bool = False
    network: bool = False
    images: int | None = None
    sweeps: int = 1


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "least_squares": Strategy(),
        "two_sided": Strategy(producers=True),
        "two_sweeps": Strategy(producers=True, sweeps=2),
        "refine": Strategy(producers=True, polish="refine"),
        "refine_network": Strategy(producers=True, network=True, images=256),
        "near": Strategy(NearRidge()),
        "bounded": Strategy(Constrained(change=0.5)),
        "signs": Strategy(Constrained(signs=True)),
        "norm": Strategy(Constrained(norm=1.0)),
        "minimax": Strategy(polish="minimax"),
        "batch_norm": Strategy(None, norms=True),
        "none": Strategy(None),
    }
)
