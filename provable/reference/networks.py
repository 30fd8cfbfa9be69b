"""The two reference networks: a multilayer perceptron and a small residual network, for 8x8 digits.

Plain torch modules without anything of this project in them: they stand for the user's own class. Weights are
loaded by `provable.reference.load`, or given on the command line (``provable.reference:mlp --weights ...``).
"""

from torch import Tensor, nn


def mlp() -> nn.Module:
    """Untrained perceptron 64-100-100-10 with ReLU. Input ``(batch, 64)``, output ``(batch, 10)`` logits."""
    return nn.Sequential(
        nn.Linear(64, 100),
        nn.ReLU(),
        nn.Linear(100, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def cnn() -> nn.Module:
    """Untrained residual network of three blocks. Input ``(batch, 1, 8, 8)``, output ``(batch, 10)`` logits."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Block(16, 16),
        Block(16, 32, stride=2),
        Block(32, 32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


class Block(nn.Module):
    """``relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))``; the shortcut is a 1x1 convolution if the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU()
        same = channels_in == channels_out and stride == 1
        self.shortcut = nn.Identity() if same else _projection(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu(self.norm1(self.conv1(x)))
        out: Tensor = self.relu(self.shortcut(x) + self.norm2(self.conv2(inner)))
        return out


def _projection(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))
