"""The digits data and the trained weights that ship with the package.

The split is declared by row index in ``split.json``: the networks were trained on the rows under "calibration", and
no row under "held_out" was seen by training or by the choice of its settings. Both come from one random permutation
of the data set, so held-out rows are an exchangeable sample: what a statistical certificate asks for.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from provable.reference.networks import cnn, mlp

FOLDER = Path(__file__).parent
SHADES = 16  # pixels are integers 0..16


@dataclass(frozen=True)
class Images:
    """Images in the network's input format with their digits.

    Attributes:
        images: ``(n, 64)`` for the perceptron, ``(n, 1, 8, 8)`` for the residual network; float32 in [0, 1].
        labels: ``(n,)`` integers 0..9. Compression never looks at them.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Reference:
    """A trained network with its data.

    Attributes:
        name: "mlp" or "cnn".
        module: the network in evaluation mode, float32, on the CPU.
        calibration: the rows it was trained on.
        held_out: the rows it never saw.
    """

    name: str
    module: nn.Module
    calibration: Images
    held_out: Images

    @property
    def weights(self) -> Path:
        """The safetensors file its weights came from."""
        return weights_file(self.name)


@dataclass(frozen=True)
class _Design:
    factory: Callable[[], nn.Module]
    input_shape: tuple[int, ...]


DESIGNS = {"mlp": _Design(mlp, (64,)), "cnn": _Design(cnn, (1, 8, 8))}


def load(name: str) -> Reference:
    """The reference network `name` ("mlp" or "cnn") with its data. A fresh copy at each call.

    Raises:
        ValueError: there is no such network.
    """
    module = _design(name).factory()
    module.load_state_dict(load_file(weights_file(name)))
    module.eval().requires_grad_(False)
    return Reference(name, module, images(name, "calibration"), images(name, "held_out"))


def images(name: str, part: str) -> Images:
    """The rows of `part` ("calibration" or "held_out") in the input format of network `name`."""
    rows = json.loads((FOLDER / "split.json").read_text(encoding="utf-8"))[part]
    with np.load(FOLDER / "digits.npz", allow_pickle=False) as archive:
        pixels, labels = archive["pixels"][rows], archive["labels"][rows]
    shape = (len(rows), *_design(name).input_shape)
    return Images((pixels / np.float32(SHADES)).reshape(shape), labels.astype(np.int64))


def weights_file(name: str) -> Path:
    """Where the weights of network `name` are."""
    _design(name)
    return FOLDER / f"{name}.safetensors"


def accuracy(module: nn.Module, data: Images) -> float:
    """The share of `data` whose largest logit is at the label."""
    with torch.no_grad():
        winners = module(torch.from_numpy(data.images)).argmax(1).numpy()
    return float((winners == data.labels).mean())


def _design(name: str) -> _Design:
    if name not in DESIGNS:
        raise ValueError(f"no reference network {name!r}; there are: {', '.join(sorted(DESIGNS))}")
    return DESIGNS[name]
