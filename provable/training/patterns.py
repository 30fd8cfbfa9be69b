"""Pattern and connectivity sparsity of 3x3 kernels: the library of patterns, and the projection onto such weights.

    Pi_S(W)   per kernel the pattern of 4 entries that keeps most of its norm; then the kernels of largest norm

Reference for the idea: Gong et al., 2020. Theory: theory_notes/training.md.
"""

import itertools

import torch
from torch import Tensor

from provable.errors import TargetError
from provable.training.masks import exactly_top

ENTRIES = 4  # of a pattern: the centre and three neighbours


def patterns() -> Tensor:
    """The library: (56, 3, 3) masks with the centre and three of its eight neighbours."""
    around = [i for i in range(9) if i != 4]
    library = torch.zeros(0, 9)
    for chosen in itertools.combinations(around, ENTRIES - 1):
        mask = torch.zeros(1, 9)
        mask[0, [4, *chosen]] = 1.0
        library = torch.cat([library, mask])
    return library.view(-1, 3, 3)


def project(weight: Tensor, connectivity: float, library: Tensor | None = None) -> Tensor:
    """The nearest weight ``(out, in, 3, 3)`` whose kernels are zero or follow a pattern, a share of them not zero.

    Raises:
        TargetError: kernels of another size, or a share that keeps none or more than all.
    """
    if weight.ndim != 4 or weight.shape[2:] != (3, 3):
        raise TargetError(f"patterns are for 3x3 kernels, this weight has shape {tuple(weight.shape)}")
    kernels = weight.flatten(0, 1)
    kept = round(connectivity * len(kernels))
    if not 1 <= kept <= len(kernels):
        raise TargetError(
            f"a connectivity of {connectivity!r} keeps {kept} of {len(kernels)} kernels; keep at least one, at most all"
        )
    masks = (patterns() if library is None else library).to(weight)
    norms = kernels.square().flatten(1) @ masks.flatten(1).T  # (kernels, patterns)
    best, index = norms.max(dim=1)
    fitted = kernels * masks[index] * exactly_top(best, kept)[:, None, None]
    return fitted.view_as(weight)
