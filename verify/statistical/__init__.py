"""Guarantees with a stated confidence, from fresh data: finite samples, no assumption on the distribution.

fresh inputs ──► disjoint (no calibration row among them) ──► deviations d_1 ... d_n
    P(d > eps)        clopper_pearson        E[min(d, cap)]    betting, empirical_bernstein, hoeffding
    quantile of d     tolerance (Wilks)      whole curve       dkw
    a choice among candidates that keeps its confidence        learn_then_test
                                     └──► certificate: numbers, hashes and the claim in words
"""

from verify.statistical.betting import betting_upper
from verify.statistical.certificate import StatisticalCertificate, certify_sample
from verify.statistical.certificate_file import read_certificate, recount, write_certificate
from verify.statistical.clopper_pearson import rate_lower, rate_upper, samples_needed
from verify.statistical.disjoint import check_disjoint, read_calibration_rows, row_hashes
from verify.statistical.dkw import ExceedanceCurve, exceedance_curve
from verify.statistical.empirical_bernstein import empirical_bernstein_upper
from verify.statistical.hoeffding import hoeffding_upper
from verify.statistical.learn_then_test import Count, Decision, FixedSequence
from verify.statistical.tolerance import Tolerance, tolerance_rank, tolerance_upper

__all__ = [
    "Count",
    "Decision",
    "ExceedanceCurve",
    "FixedSequence",
    "StatisticalCertificate",
    "Tolerance",
    "betting_upper",
    "certify_sample",
    "check_disjoint",
    "empirical_bernstein_upper",
    "exceedance_curve",
    "hoeffding_upper",
    "rate_lower",
    "rate_upper",
    "read_calibration_rows",
    "read_certificate",
    "recount",
    "row_hashes",
    "samples_needed",
    "tolerance_rank",
    "tolerance_upper",
    "write_certificate",
]
