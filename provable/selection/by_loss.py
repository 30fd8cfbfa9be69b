"""Selection by the loss after compensation: greedy elimination, or volume sampling with acceptance.

Both inherit a bound that is known before anything is chosen (theory_notes/volume_sampling.md): volume sampling keeps
a draw only if its exact loss meets twice the expectation; the greedy set is kept only if its exact loss is at
most the expectation of volume sampling, else the derandomised set, which meets it, takes its place.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from provable.bounds.a_priori import APrioriBound
from provable.bounds.volume_bound import VolumeEvidence, VolumePromise, volume_evidence
from provable.compensation.moments import Matrix
from provable.method import Method
from provable.sampling.acceptance import draw_until
from provable.sampling.channel_matrix import column_norms
from provable.sampling.volume import Volume
from provable.selection.evidence import Choice, Evidence, as_consumer, relative_loss
from provable.selection.greedy_elimination import eliminate

QUANTITY = (
    "calibration squared error of the consumers' streams after compensation, above that of the best refit with all "
    "channels, relative to the streams' variance"
)

WHITENED_UP_TO = 300
"""Coordinates up to which the sharper constant of the weighted bound is worth its eigendecomposition."""


def volume_options(evidence: Evidence) -> list[VolumeEvidence]:
    """What volume sampling reads, with and without the weights' norms as scale."""
    consumers = [as_consumer(view) for view in evidence.views]
    norms = np.max([column_norms(consumer.weight) for consumer in consumers], axis=0)
    return [volume_evidence(consumers, scale, whitened_up_to=WHITENED_UP_TO) for scale in (None, norms)]


def promise(options: Sequence[VolumeEvidence], count: int) -> VolumePromise:
    """The better of the promises, in relative loss."""
    return min((option.promise(count) for option in options), key=lambda promised: promised.expected_upper)


def greedy(evidence: Evidence, count: int, generator: Generator) -> Choice:
    """Backward elimination; never worse than what volume sampling promises. Uses no randomness."""
    promised = promise(volume_options(evidence), count)
    kept = eliminate(evidence.views, down_to=count).kept(count)
    bound, method = promised.derandomised(), "greedy elimination"
    if relative_loss(evidence.views, kept) - _floor(evidence) > bound.value:
        kept = promised.derandomised_design().draw(promised.matrix, count, generator).kept
        method = "derandomised volume sampling (greedy missed its bound)"
    return Choice(kept, _relative(bound), method=method)


def volume(evidence: Evidence, count: int, generator: Generator) -> Choice:
    """Volume sampling, drawn until the exact loss is at most twice the bound on its expectation."""
    promised, floor = promise(volume_options(evidence), count), _floor(evidence)
    bound = promised.sampled()
    drawn = draw_until(
        Volume(),
        promised.matrix,
        count,
        loss=lambda selection: relative_loss(evidence.views, selection.kept) - floor,
        limit=bound.value,
        generator=generator,
    )
    words = f"volume sampling, {drawn.attempts} draws" + ("" if drawn.met else ", limit not met")
    return Choice(drawn.selection.kept, _relative(bound), method=words)


def greedy_curve(evidence: Evidence) -> Matrix:
    """Relative loss after compensation for 0, 1, ... kept slots, along greedy elimination."""
    return eliminate(evidence.views).losses


def volume_curve(evidence: Evidence) -> Matrix:
    """Bound on the expected relative loss of volume sampling for 0, 1, ... kept slots."""
    options = volume_options(evidence)
    bounds = [promise(options, count).expected_upper for count in range(1, evidence.slots + 1)]
    return np.minimum.accumulate(np.array([options[0].trivial, *bounds]))


def _floor(evidence: Evidence) -> float:
    """Relative loss of the best refit with all slots."""
    return relative_loss(evidence.views, range(evidence.slots))


def _relative(bound: APrioriBound) -> APrioriBound:
    return replace(bound, quantity=QUANTITY)


METHODS = (
    Method(
        name="greedy", summary="backward elimination by the exact loss after compensation", granularity="channel",
        when="after training", criterion="reconstruction error", data="unlabelled", recovery="closed form",
        guarantee="a-priori bound", reference="after Hassibi & Stork 1993 (optimal brain surgeon); this project",
        cost="one pass for moments, O(c^2 k^2 d) per layer", use="provable compress --recipe greedy",
    ),
    Method(
        name="volume", summary="determinantal sampling, accepted when it meets its bound", granularity="channel",
        when="after training", criterion="probabilistic", data="unlabelled", recovery="closed form",
        guarantee="a-priori bound", reference="after Deshpande, Rademacher, Vempala & Wang 2006; this project",
        cost="one pass for moments, one eigendecomposition per layer", use="provable compress --recipe volume",
    ),
)  # fmt: skip
