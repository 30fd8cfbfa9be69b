"""What is promised before anything is run: one theorem per file, each with its direction and assumptions.

event_bound                 how often fresh inputs stay within the calibration maxima
layer_theorem               sampling with replacement: draws <-> relative error
deterministic_bound         largest scores kept, no reweighting
hybrid_bound                certain part + sampled part
without_replacement_bound   Poisson and pivotal designs
volume_bound                loss AFTER least squares on a volume-sampled set
recursion                   from layers to the network, for one input
"""

from provable.bounds.a_priori import APrioriBound
from provable.bounds.deterministic_bound import deterministic_bound, deterministic_error
from provable.bounds.event_bound import (
    Coverage,
    coverage_by_assumption,
    coverage_by_exchangeability,
    escape_estimate,
    images_for_assumption,
    images_for_coverage,
)
from provable.bounds.hybrid_bound import hybrid_bound, hybrid_error, hybrid_sample_size
from provable.bounds.layer_theorem import layer_bound, layer_error, layer_sample_size, same_sign_sums
from provable.bounds.recursion import PrunedDense, dense_recursion, measured_relative_error
from provable.bounds.volume_bound import (
    Consumer,
    VolumeEvidence,
    VolumePromise,
    expected_residual,
    tail_bound,
    volume_evidence,
)
from provable.bounds.without_replacement_bound import (
    without_replacement_bound,
    without_replacement_error,
    without_replacement_size,
)

__all__ = [
    "APrioriBound",
    "Consumer",
    "Coverage",
    "PrunedDense",
    "VolumeEvidence",
    "VolumePromise",
    "coverage_by_assumption",
    "coverage_by_exchangeability",
    "dense_recursion",
    "deterministic_bound",
    "deterministic_error",
    "escape_estimate",
    "expected_residual",
    "hybrid_bound",
    "hybrid_error",
    "hybrid_sample_size",
    "images_for_assumption",
    "images_for_coverage",
    "layer_bound",
    "layer_error",
    "layer_sample_size",
    "measured_relative_error",
    "same_sign_sums",
    "tail_bound",
    "volume_evidence",
    "without_replacement_bound",
    "without_replacement_error",
    "without_replacement_size",
]
