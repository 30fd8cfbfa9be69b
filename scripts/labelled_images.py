"""Small sets of images with labels for the scripts: the digits that ship with the package, and a part of MNIST.

They lie on a GPU where there is one.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from provable.reference import load

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TRAINING = 2000  # images of MNIST


@dataclass(frozen=True)
class Data:
    """Images with their digits."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def digits(name: str) -> Data:
    """600 training and 500 test images of the bundled digits, as the reference network "mlp" or "cnn" takes them."""
    reference = load(name)
    known, fresh = reference.calibration, reference.held_out
    arrays = (known.images[:600], known.labels[:600], fresh.images, fresh.labels)
    return Data(*(torch.from_numpy(array).to(DEVICE) for array in arrays))


def mnist(folder: Path, tests: int) -> Data:
    """2000 training images of MNIST and some test images, ``(n, 1, 28, 28)``."""
    with np.load(folder / "mnist" / "mnist.npz", allow_pickle=False) as archive:
        parts = [archive[f"{part}_{what}"] for part in ("train", "test") for what in ("images", "labels")]
    x, y, fresh, answers = parts[0][:TRAINING], parts[1][:TRAINING], parts[2][:tests], parts[3][:tests]
    images = [torch.from_numpy(a.transpose(0, 3, 1, 2).astype(np.float32) / 255) for a in (x, fresh)]
    labels = [torch.from_numpy(a.astype(np.int64)) for a in (y, answers)]
    return Data(*(tensor.to(DEVICE) for tensor in (images[0], labels[0], images[1], labels[1])))
