"""Relative importance of a layer's input channels for given inputs.

    c_uj   = sum over the kernel positions t of W[filter, j, t] x[j, t, patch],      u = (filter, patch)
    z_u^+  = sum_j max(c_uj, 0),      z_u^- = sum_j max(-c_uj, 0)
    g_j(x) = max_u max( max(c_uj, 0) / z_u^+ ,  max(-c_uj, 0) / z_u^- )              0/0 := 0 exactly

Reference: Liebenwein, Baykal, Lang, Feldman, Rus, "Provable Filter Pruning for Efficient Neural Networks",
ICLR 2020. Differences from the published implementation: (1) a channel's contribution is the SUM over its
kernel positions, because that is what disappears with the channel; the largest single position can be up to
kh*kw times smaller and voids the proof; (2) weights and inputs of any sign need no splitting; (3) only a sum
that is exactly zero counts as zero.
Proof of what follows from it: theory_notes/sensitivity_sampling.md.
Not claimed: anything about inputs that were not measured (see provable.bounds.event_bound).
"""

import torch
from torch import Tensor

from verify.errors import DataError

CHUNK = 1 << 18  # contributions held at once: about the second-level cache in float64


def relative_importance(
    weight: Tensor, patches: Tensor, *, groups: int = 1, dtype: torch.dtype = torch.float64, chunk: int = CHUNK
) -> Tensor:
    """Largest relative importance of each channel over a batch, shape ``(c,)``, in [0, 1].

    The maximum over two batches is the element-wise maximum of their results, so that a batch may be cut
    anywhere. Arguments and errors as in `relative_importance_per_image`.
    """
    return relative_importance_per_image(weight, patches, groups=groups, dtype=dtype, chunk=chunk).amax(dim=0)


def relative_importance_per_image(
    weight: Tensor, patches: Tensor, *, groups: int = 1, dtype: torch.dtype = torch.float64, chunk: int = CHUNK
) -> Tensor:
    """Relative importance g_j(x) of each channel for each image, shape ``(b, c)``, in [0, 1].

    Args:
        weight: ``(f, c // groups, k)``: output filters, input channels, positions that belong to a channel
            (kernel positions of a convolution; 1 for a linear layer; the map behind a flatten).
        patches: ``(b, c, k, r)``: images, input channels, positions, patches (output positions; 1 for a linear layer).
        groups: groups of a grouped convolution; c (a depthwise one) gives importance 1 to every channel that acts.
        dtype: float64, or float32 for speed: then sums that nearly cancel may be off by the float32 roundoff
            relative to their largest terms, and the theorem applies to the rounded importances only approximately.
        chunk: contributions held in memory at once (at least one unit is always processed whole).

    Raises:
        DataError: shapes that do not fit, an empty batch, or values that are not finite.
    """
    _check(weight, patches, groups)
    with torch.no_grad():
        parts = [
            _one_group(w.to(dtype), x.to(dtype), chunk)
            for w, x in zip(weight.chunk(groups, dim=0), patches.chunk(groups, dim=1), strict=True)
        ]
    return torch.cat(parts, dim=1)


def _check(weight: Tensor, patches: Tensor, groups: int) -> None:
    if weight.ndim != 3 or patches.ndim != 4:
        raise DataError(
            f"relative importance needs weight (f, c/groups, k) and patches (b, c, k, r); got {tuple(weight.shape)} "
            f"and {tuple(patches.shape)}; unfold the layer's input first"
        )
    (f, c, k), (b, channels, positions, r) = weight.shape, patches.shape
    if groups < 1 or f % groups or c * groups != channels or k != positions:
        raise DataError(f"weight {(f, c, k)} with {groups} groups does not read patches {(b, channels, positions, r)}")
    if 0 in (f, c, k, b, r):
        raise DataError(f"empty layer or batch: weight {(f, c, k)}, patches {(b, channels, positions, r)}")
    for name, values in (("weight", weight), ("patches", patches)):
        if not bool(torch.isfinite(values).all()):
            raise DataError(f"{name} holds NaN or infinity: the importance of a channel is then undefined")


def _one_group(weight: Tensor, patches: Tensor, chunk: int) -> Tensor:
    f, c, _ = weight.shape
    b, _, _, r = patches.shape
    w = weight.transpose(0, 1).contiguous()  # (c, f, k)
    importance = patches.new_zeros(b, c)
    filters = max(1, min(f, chunk // c))
    columns = max(1, min(r, chunk // (c * filters)))
    images = max(1, chunk // (c * filters * columns))
    for i in range(0, b, images):
        x = patches[i : i + images].permute(1, 2, 0, 3)  # (c, k, images, r)
        for p in range(0, r, columns):
            units = x[..., p : p + columns].contiguous()
            for a in range(0, f, filters):
                found = _largest_share(w[:, a : a + filters], units)
                torch.maximum(importance[i : i + images], found, out=importance[i : i + images])
    return importance


def _largest_share(weight: Tensor, patches: Tensor) -> Tensor:
    """``weight (c, f, k)``, ``patches (c, k, b, r)`` -> largest share of each channel, ``(b, c)``."""
    c, _, b, r = patches.shape
    contributions = torch.bmm(weight, patches.flatten(2)).view(c, -1, b, r)
    best = _share(contributions.clamp(min=0))
    return torch.maximum(best, _share(contributions.neg_().clamp_(min=0)))


def _share(nonnegative: Tensor) -> Tensor:
    total = nonnegative.sum(dim=0)
    total.masked_fill_(total == 0, torch.inf)  # 0/0 := 0; every other denominator is used as it is
    return nonnegative.div_(total).amax(dim=(1, 3)).T
