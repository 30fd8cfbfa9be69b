"""Trains the two reference networks and writes what `provable.reference` ships.

    python scripts/train_reference.py [--output provable/reference] [--network mlp|cnn ...]

Needs scikit-learn (its bundled digits; nothing is downloaded). One thread, deterministic algorithms, fixed seeds: a
second run on the same machine with the same versions writes the same bytes. Under a minute for both.
"""

import argparse
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn

from provable.reference.networks import cnn, mlp

HELD_OUT = 500
SPLIT_SEED = 0
TRAINING_SEED = 0


@dataclass(frozen=True)
class Recipe:
    """How one network is trained: AdamW with a one-cycle schedule, images shifted by at most one pixel, noise."""

    factory: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    epochs: int
    rate: float
    decay: float
    shift: int
    noise: float


RECIPES = {
    "mlp": Recipe(mlp, (64,), epochs=150, rate=3e-3, decay=1e-1, shift=0, noise=0.10),
    "cnn": Recipe(cnn, (1, 8, 8), epochs=60, rate=1e-2, decay=1e-2, shift=1, noise=0.05),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("provable/reference"))
    parser.add_argument("--network", nargs="+", choices=sorted(RECIPES), default=sorted(RECIPES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    pixels, labels = digits()
    split = declared_split(len(labels))
    write(arguments.output / "split.json", (json.dumps(split) + "\n").encode())
    write_archive(arguments.output / "digits.npz", pixels=pixels, labels=labels)
    for name in arguments.network:
        module = train(RECIPES[name], pixels, labels, split["calibration"])
        weights = {key: value.contiguous() for key, value in module.state_dict().items()}
        write(arguments.output / f"{name}.safetensors", save(weights))
        shares = [correct(module, RECIPES[name], pixels, labels, split[part]) for part in ("calibration", "held_out")]
        print(f"{name}: {shares[0]:.2%} of the training images, {shares[1]:.2%} of {HELD_OUT} held-out images")


def digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels ``(1797, 64)`` in 0..16 and labels ``(1797,)``."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.data.astype(np.uint8), data.target.astype(np.uint8)


def declared_split(rows: int) -> dict[str, list[int]]:
    order = np.random.default_rng(SPLIT_SEED).permutation(rows)
    return {"calibration": sorted(map(int, order[HELD_OUT:])), "held_out": sorted(map(int, order[:HELD_OUT]))}


def train(recipe: Recipe, pixels: NDArray[np.uint8], labels: NDArray[np.uint8], rows: list[int]) -> nn.Module:
    generator = torch.Generator().manual_seed(TRAINING_SEED)
    torch.manual_seed(TRAINING_SEED)  # the initial weights come from the global generator
    module = recipe.factory()
    images, targets = tensors(recipe, pixels, labels, rows)
    batches = -(-len(images) // 64)
    optimiser = torch.optim.AdamW(module.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=recipe.epochs * batches)
    loss = nn.CrossEntropyLoss(label_smoothing=0.05)
    for _ in range(recipe.epochs):
        for batch in torch.randperm(len(images), generator=generator).split(64):
            optimiser.zero_grad()
            loss(module(disturbed(images[batch], recipe, generator)), targets[batch]).backward()
            optimiser.step()
            schedule.step()
    return module.eval()


def disturbed(images: torch.Tensor, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    noisy = images + recipe.noise * torch.randn(images.shape, generator=generator)
    if recipe.shift == 0:
        return noisy
    down, right = torch.randint(-recipe.shift, recipe.shift + 1, (2,), generator=generator).tolist()
    padded = nn.functional.pad(noisy, [recipe.shift] * 4)
    top, left = recipe.shift + down, recipe.shift + right
    return padded[..., top : top + images.shape[-2], left : left + images.shape[-1]]


def correct(
    module: nn.Module, recipe: Recipe, pixels: NDArray[np.uint8], labels: NDArray[np.uint8], rows: list[int]
) -> float:
    images, targets = tensors(recipe, pixels, labels, rows)
    with torch.no_grad():
        return float((module(images).argmax(1) == targets).float().mean())


def tensors(
    recipe: Recipe, pixels: NDArray[np.uint8], labels: NDArray[np.uint8], rows: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(pixels[rows] / np.float32(16)).reshape(len(rows), *recipe.input_shape)
    return images, torch.from_numpy(labels[rows].astype(np.int64))


def write_archive(path: Path, **arrays: NDArray[np.uint8]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write(path, buffer.getvalue())


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(content)
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
