"""Which images a descent sees and in which order, and which ones judge it."""

from itertools import pairwise

import torch
from torch import Tensor


def split(samples: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(images to descend on, images to judge on): disjoint where there are at least two.

    Args:
        samples: how many there are.
        share: of them to judge on, in (0, 1); at least one image, at most all but one.
        generator: draws them.
    """
    order = torch.randperm(samples, generator=generator)
    count = min(max(1, round(share * samples)), samples - 1)
    return (order[count:], order[:count]) if count else (order, order)


def minibatches(images: Tensor, size: int, steps: int, generator: torch.Generator) -> list[Tensor]:
    """`steps` batches: the images in a new random order, epoch after epoch."""
    size = min(size, len(images))
    per_epoch = len(images) // size
    epochs = [torch.randperm(len(images), generator=generator) for _ in range(-(-steps // per_epoch))]
    cut = [images[epoch[a:b]] for epoch in epochs for a, b in pairwise(range(0, per_epoch * size + 1, size))]
    return cut[:steps]
