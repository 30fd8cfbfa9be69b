"""Layered basis pursuit: every layer's code explains the one below, without regard for the layers above.

    gamma_i = argmin over gamma of (1/2) || gamma_{i-1} - D_i gamma ||^2 + lam_i || gamma ||_1,      gamma_0 = y

by FISTA, layer by layer: the baseline of multi-layer basis pursuit (Papyan, Romano, Elad 2017). Theory note:
sparse_coding.md. Not claimed: that gamma_{i-1} = D_i gamma_i holds; it does not.
"""

from torch import Tensor

from provable.method import Method
from provable.sparse_coding.pursuit import Problem, ml_fista


def layered_basis_pursuit(problem: Problem, iterations: int) -> list[Tensor]:
    """gamma_1 ... gamma_L after `iterations` steps of FISTA per layer."""
    codes, below = list[Tensor](), problem.signals
    for dictionary, penalty in zip(problem.dictionaries, problem.penalties, strict=True):
        below = ml_fista(Problem(below, (dictionary,), (penalty,)), iterations).code
        codes.append(below)
    return codes


METHODS = (
    Method(
        name="layered-bp", summary="layered basis pursuit, each layer alone (baseline)", granularity="none",
        when="any time", criterion="sparse representation", data="unlabelled", recovery="none", guarantee="none",
        reference="Papyan, Romano, Elad, JMLR 2017, arXiv 1607.08194", cost="two passes through a dictionary per step",
        use="provable.sparse_coding.layered_basis_pursuit",
    ),
)  # fmt: skip
