"""How often the calibration maximum covers a fresh input: the event E_K(x), g_j(x) <= K s_j for every channel j.

(i)  No assumption beyond i.i.d. images (exchangeability), K = 1:
         P(E_1) >= 1 - channels / (images + 1)      over the calibration images AND the fresh x together
(ii) Assumption 1 of Liebenwein et al. (ICLR 2020): constants K, K' with F_j(M_j / K) <= exp(-1/K') for every
     channel, F_j the distribution function of g_j(x), M_j its largest possible value. Then
         P(E_K(x) for ALL x of the distribution) >= 1 - channels exp(-images / K')       over the images
Images count, not patches: patches of one image are dependent. Proofs: theory_notes/sensitivity_sampling.md.
Not claimed: that (ii) holds for a given network; and (i) is marginal, it says nothing about one given calibration set.
"""

import math
from dataclasses import dataclass

from provable.bounds.a_priori import checked_failure, checked_positive
from provable.sensitivity.record import Sensitivity
from verify.errors import DataError


@dataclass(frozen=True)
class Coverage:
    """Probability that fresh inputs keep within K times the calibration maxima.

    Attributes:
        name: "exchangeability" or "assumption 1".
        probability: lower bound on the probability of E_K; 0 when nothing is promised.
        slack: K.
        assumption: what is assumed and what is random, in words.
    """

    name: str
    probability: float
    slack: float
    assumption: str


def coverage_by_exchangeability(channels: int, images: int) -> Coverage:
    """Coverage (i). `channels`: all those for which it must hold at once (sum over the layers for a whole network)."""
    _check(channels, images)
    return Coverage(
        "exchangeability",
        max(0.0, 1.0 - channels / (images + 1)),
        1.0,
        f"the {images} calibration images and the input are i.i.d.; probability over all of them",
    )


def coverage_by_assumption(channels: int, images: int, slack: float, rate: float) -> Coverage:
    """Coverage (ii) with K = `slack` >= 1 and K' = `rate` > 0; both are assumed, never estimated here."""
    _check(channels, images)
    if not slack >= 1:
        raise DataError(f"the slack K is at least 1; got {slack}")
    failure = channels * math.exp(-images / checked_positive("the rate K'", rate))
    return Coverage(
        "assumption 1",
        max(0.0, 1.0 - failure),
        slack,
        f"Assumption 1 with K = {slack:g}, K' = {rate:g} (not checked); the {images} calibration images are i.i.d.",
    )


def images_for_coverage(channels: int, failure: float) -> int:
    """Smallest number of images for which (i) promises failure at most `failure`."""
    _check(channels, 0)
    images = max(0, math.ceil(channels / checked_failure(failure)) - 2)
    while channels / (images + 1) > failure:
        images += 1
    return images


def images_for_assumption(channels: int, failure: float, rate: float) -> int:
    """Smallest number of images for which (ii) promises failure at most `failure`: ceil(K' log(channels/failure))."""
    _check(channels, 0)
    return max(0, math.ceil(checked_positive("the rate K'", rate) * math.log(channels / checked_failure(failure))))


def escape_estimate(sensitivity: Sensitivity) -> float:
    """Estimate (no bound) of P(not E_1): distinct images that hold a maximum, over all images.

    Leave-one-out: an image that holds a maximum alone would have escaped the others' sensitivity. The
    expectation is at least the escape probability after images - 1 images, and at most channels/images.
    """
    if sensitivity.images == 0:
        raise DataError("no image has been seen: there is nothing to estimate from")
    return sensitivity.record_holders / sensitivity.images


def _check(channels: int, images: int) -> None:
    if channels < 1 or images < 0:
        raise DataError(f"coverage needs at least one channel and no negative image count; got {channels}, {images}")
