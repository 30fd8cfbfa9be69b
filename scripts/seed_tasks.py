"""What the seed systems are compared on: data, starting networks, and one ordinary training loop.

`digits()` ships with the package. `mnist(folder)` reads MNIST and trains its own networks first: a perceptron
784-300-100-10, a residual network with batch norms, and one with gated blocks. `resnet(folder)` is the trained
ResNet-32 with the part of CIFAR-10 in the data folder. Networks are trained and judged on a GPU where there is one.
"""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from provable import reference
from provable.reference import Images
from provable.reference.networks import Block
from provable.training import ResidualGate
from verify.network.graph import Network
from verify.network.module import NetworkModule
from verify.network.read_export import trace

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH = 64
VALIDATION = 10_000  # training images that take the place of the test images while settings are chosen
CIFAR_VALIDATION = 1000
SHIFT = 4  # pixels, at most


@dataclass(frozen=True)
class Start:
    """A trained network, ready to be trained on, with its data."""

    module: nn.Module
    network: Network
    train: Images
    held_out: Images

    @property
    def example(self) -> Tensor:
        """One input with a batch axis of 1."""
        return torch.from_numpy(self.train.images[:1])


@dataclass(frozen=True)
class Task:
    """Data and starting networks.

    Attributes:
        title, population: in words; the second is what a certificate speaks about.
        share: of the full number of training steps that are taken.
        folder: where the real data is; None without.
        validate: whether training images stand for the test images.
    """

    title: str
    population: str
    share: float
    data: Mapping[str, tuple[Images, Images]]
    make: Callable[[str], nn.Module]
    folder: Path | None = None
    validate: bool = False
    _made: dict[str, nn.Module] = field(default_factory=dict)
    _spent: list[float] = field(default_factory=list)

    @property
    def preparing(self) -> float:
        """Processor seconds that went into training starting networks so far."""
        return sum(self._spent)

    def steps(self, full: int) -> int:
        """How many of `full` training steps to take."""
        return max(1, round(self.share * full))

    def start(self, name: str) -> Start:
        """A fresh copy of the network "mlp", "cnn" or "gated"; it is trained when it is first asked for."""
        train, held_out = self.data[name]
        if name not in self._made:
            began = time.process_time()
            self._made[name] = self.make(name).to(DEVICE)
            self._spent.append(time.process_time() - began)
        module = copy.deepcopy(self._made[name]).requires_grad_(True)
        network = trace(module.eval(), torch.from_numpy(train.images[:1]))
        return Start(module.train(), network, train, held_out)


def digits(share: float) -> Task:
    """The digits and the networks of `provable.reference`; 1297 training and 500 held-out images."""
    data = {
        name: (reference.images(name, "calibration"), reference.images(name, "held_out")) for name in ("mlp", "cnn")
    }

    def make(name: str) -> nn.Module:
        if name != "gated":
            return reference.load(name).module
        model = _seeded(lambda: gated(nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.ReLU(), width=12, side=4))
        fit(model, data["cnn"][0], _adam(model), max(1, round(1500 * share)), rate=cooled)
        return model

    population = "8x8 digits as the data set's 13 writers draw them"
    return Task("8x8 digits", population, share, {**data, "gated": data["cnn"]}, make)


def mnist(folder: Path, *, validate: bool = False) -> Task:
    """MNIST; with `validate` the last training images stand for the test images."""
    with np.load(folder / "mnist" / "mnist.npz", allow_pickle=False) as archive:
        train, test = (_images(archive[f"{part}_images"], archive[f"{part}_labels"]) for part in ("train", "test"))
    if validate:
        test = Images(train.images[-VALIDATION:], train.labels[-VALIDATION:])
        train = Images(train.images[:-VALIDATION], train.labels[:-VALIDATION])
    flat = tuple(Images(part.images.reshape(len(part), -1), part.labels) for part in (train, test))
    designs = {"mlp": perceptron, "cnn": residual, "gated": gated_residual}
    recipes = {"mlp": 4000, "cnn": 1500, "gated": 1500}

    def make(name: str) -> nn.Module:
        model = _seeded(designs[name])
        fit(model, flat[0] if name == "mlp" else train, _adam(model), recipes[name], rate=cooled)
        return model.eval()

    data = {"mlp": (flat[0], flat[1]), "cnn": (train, test), "gated": (train, test)}
    return Task("MNIST", "MNIST's test images", 1.0, data, make, folder, validate)


def _images(pixels: "np.ndarray", labels: "np.ndarray") -> Images:
    scaled = pixels.reshape(len(pixels), 1, 28, 28).astype(np.float32) / np.float32(255)
    return Images(scaled, labels.astype(np.int64))


def perceptron() -> nn.Module:
    """LeNet-300-100."""
    return nn.Sequential(
        nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )  # fmt: skip


def residual() -> nn.Module:
    """Three residual blocks with batch norms, on 14 x 14, 7 x 7 and 4 x 4 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Block(16, 32, stride=2), Block(32, 32), Block(32, 64, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(64, 10),
    )  # fmt: skip


def gated_residual() -> nn.Module:
    """Three gated residual blocks on 7 x 7 pixels."""
    stem = nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()
    return gated(*stem, width=16, side=7)


def gated(*stem: nn.Module, width: int, side: int) -> nn.Sequential:
    """A stem, three residual blocks that can be closed, and a classifier on all pixels."""

    def block() -> ResidualGate:
        branch = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.Conv2d(2 * width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        return ResidualGate(branch, nn.Identity(), nn.ReLU())

    return nn.Sequential(*stem, block(), block(), block(), nn.Flatten(), nn.Linear(width * side * side, 10))


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def _adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.2)


def cooled(done: float) -> float:
    """A rate that falls to a tenth, and to a hundredth."""
    return 1.0 if done < 0.6 else 0.1 if done < 0.85 else 0.01


def fit(
    model: nn.Module,
    data: Images,
    optimizer: torch.optim.Optimizer,
    steps: int,
    *,
    penalty: Callable[[], Tensor] = lambda: torch.zeros(()),
    after: Callable[[], None] = lambda: None,
    rate: Callable[[float], float] = lambda done: 1.0,
    change: Callable[[Tensor, torch.Generator], Tensor] = lambda images, _: images,
    seed: int = 0,
) -> None:
    """An ordinary training loop, where the model is.

    `after` runs behind every step, `rate` scales the learning rate over time, `change` alters every batch of images.
    """
    device = next(model.parameters()).device
    images, labels = (torch.from_numpy(array).to(device) for array in (data.images, data.labels))
    generator = torch.Generator().manual_seed(seed)
    rates = [group["lr"] for group in optimizer.param_groups]
    model.train()
    for step in range(steps):
        for group, lr in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = lr * rate(step / steps)
        rows = torch.randint(len(labels), (BATCH,), generator=generator)
        optimizer.zero_grad()
        (nn.functional.cross_entropy(model(change(images[rows], generator)), labels[rows]) + penalty()).backward()
        optimizer.step()
        after()
    for group, lr in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = lr
    model.eval()


def moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flipped or not and shifted by some pixels, each image for itself: what is usual on CIFAR-10."""
    count, channels, height, width = images.shape
    flip = (torch.rand(count, generator=generator) < 0.5).to(images.device)
    flipped = torch.where(flip.view(-1, 1, 1, 1), images.flip(3), images)
    padded = nn.functional.pad(flipped, (SHIFT,) * 4)
    down, right = torch.randint(2 * SHIFT + 1, (2, count, 1), generator=generator)
    rows, columns = down + torch.arange(height), right + torch.arange(width)
    each, every = torch.arange(count).view(-1, 1, 1, 1), torch.arange(channels).view(1, -1, 1, 1)
    return padded[each, every, rows[:, None, :, None], columns[:, None, None, :]]


def narrowed(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the module at the widths of a compact network's state_dict, with its values, ready to be trained.

    Batch norms keep their own statistics, as they do not in a network that was traced.
    """
    small = copy.deepcopy(module)
    for name, layer in list(small.named_modules()):
        shape = tuple(state[f"{name}.weight"].shape) if f"{name}.weight" in state else ()
        if isinstance(layer, nn.Conv2d):
            layer.out_channels, layer.in_channels = shape[:2]
        elif isinstance(layer, nn.BatchNorm2d):
            layer.num_features = shape[0]
        elif isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = shape
        for key, held in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            value = state[f"{name}.{key}"].clone()
            setattr(layer, key, nn.Parameter(value) if isinstance(held, nn.Parameter) else value)
    return small.train()


@torch.inference_mode()
def accuracy(model: nn.Module | Network, data: Images) -> float:
    """Share of the images that it gets right."""
    module = NetworkModule(model).to(DEVICE) if isinstance(model, Network) else model
    device = next(module.parameters()).device
    parts = zip(torch.from_numpy(data.images).split(500), torch.from_numpy(data.labels).split(500), strict=True)
    return sum(int((module(x.to(device)).argmax(1).cpu() == y).sum()) for x, y in parts) / len(data)


def resnet(folder: Path, *, validate: bool = False) -> Start:
    """The trained ResNet-32, all training images of the subset, and the 1017 test images."""
    import reproduce_resnet56 as shared

    module = shared.dense_module(folder, layers=32)
    data = shared.read_data(folder, None, seed=0)
    with np.load(folder / "cifar10" / "cifar10_subset.npz", allow_pickle=False) as archive:
        labels = archive["train_labels"].astype(np.int64)
    labels = labels[np.random.default_rng(0).permutation(len(labels))]
    train, test = Images(data.calibration, labels), Images(data.test, data.labels)
    if validate:
        test = Images(train.images[-CIFAR_VALIDATION:], train.labels[-CIFAR_VALIDATION:])
        train = Images(train.images[:-CIFAR_VALIDATION], train.labels[:-CIFAR_VALIDATION])
    return Start(module.to(DEVICE), trace(module, torch.zeros(1, 3, 32, 32)), train, test)
