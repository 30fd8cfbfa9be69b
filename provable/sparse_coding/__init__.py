"""Multi-layer sparse coding: one sparse code that explains a signal through several dictionaries at once.

dictionary   dense and convolutional dictionaries with their adjoints
pursuit      multi-layer basis pursuit: ML-ISTA, ML-FISTA, and an upper bound on what is missing to the optimum
layered      layered basis pursuit: each layer on its own
unfolded     recurrent convolutional networks that a few iterations of these algorithms are
"""

from provable.sparse_coding.dictionary import Convolution, Dense, Dictionary
from provable.sparse_coding.layered import layered_basis_pursuit
from provable.sparse_coding.pursuit import Problem, Pursuit, gap_upper, ml_fista, ml_ista, objective
from provable.sparse_coding.unfolded import UnfoldedNetwork

__all__ = [
    "Convolution",
    "Dense",
    "Dictionary",
    "Problem",
    "Pursuit",
    "UnfoldedNetwork",
    "gap_upper",
    "layered_basis_pursuit",
    "ml_fista",
    "ml_ista",
    "objective",
]
