"""Other methods that need no retraining, on the inner channels of the blocks of a CIFAR ResNet.

plain      Torch-Pruning with every importance that needs neither labels nor gradients, layers ranked together or each
           by itself; the best of them BY TEST ACCURACY, which flatters it
bn         L2 magnitude, the same share of every layer, then batch-norm statistics measured again
mix        L2 magnitude, the same share of every layer, then every removed channel as a mixture of the kept ones

Mixing (as in GRAIL, arXiv 2602.23795, written anew): with G = E[h h^T] of the channels h between a block's two
convolutions, over inputs and positions, the second convolution reads B h_A for h, B = G_:A (G_AA + ridge I)^-1.
"""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import reproduce_resnet56 as resnet
import torch
import torch_pruning
from numpy.typing import NDArray
from torch import Tensor, nn

RIDGE = 1e-3
"""Of the mean diagonal of G_AA."""

IMPORTANCES: dict[str, Callable[[], object]] = {
    "L1": lambda: torch_pruning.importance.MagnitudeImportance(p=1),
    "L2": lambda: torch_pruning.importance.MagnitudeImportance(p=2),
    "LAMP": lambda: torch_pruning.importance.LAMPImportance(p=2),
    "FPGM": lambda: torch_pruning.importance.FPGMImportance(p=2),
    "batch-norm scale": lambda: torch_pruning.importance.BNScaleImportance(),
}


def plain(module: resnet.ResNet56, keep: float) -> Iterator[tuple[str, resnet.ResNet56]]:
    """(setting, pruned network) for every setting."""
    for name, importance in IMPORTANCES.items():
        for everywhere in (False, True):
            words = "ranked together" if everywhere else "layer by layer"
            pruned = resnet.pruned_by(importance(), module, keep, everywhere)
            if resnet.multiply_adds(pruned) <= keep * resnet.multiply_adds(module):  # some never get there
                yield f"{name}, {words}", pruned


@torch.no_grad()
def mixed(module: resnet.ResNet56, keep: float, inputs: NDArray[np.float32]) -> resnet.ResNet56:
    """The network with the channels of largest L2 norm, the others mixed of them.

    Args:
        module: the dense network.
        keep: fraction of the multiply-adds to keep; it is met or undercut.
        inputs: (samples, 3, 32, 32) unlabelled.
    """
    grams = _grams(module, inputs)
    limit = keep * _multiply_adds(module)
    share = max((s for s in np.linspace(0.0, 1.0, 101) if _multiply_adds(module, s) <= limit), default=0.0)
    pruned = copy.deepcopy(module)
    for block, gram in zip(_blocks(pruned), grams, strict=True):
        norms = block.conv1.weight.flatten(1).norm(dim=1)
        kept = norms.topk(_count(block, share)).indices.sort().values
        inside = gram[kept][:, kept]
        ridge = RIDGE * inside.diagonal().mean() * torch.eye(len(kept), dtype=gram.dtype)
        mixture = torch.linalg.solve(inside + ridge, gram[kept]).T.float()  # (channels, kept)
        block.conv2.weight.data = torch.einsum("ocij,ck->okij", block.conv2.weight, mixture)
        block.conv1.weight.data = block.conv1.weight[kept]
        block.conv1.out_channels = block.conv2.in_channels = len(kept)
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(block.bn1, name).data = getattr(block.bn1, name)[kept]
        block.bn1.num_features = len(kept)
    return pruned.eval()


def _blocks(module: nn.Module) -> list[resnet.Block]:
    return [block for block in module.modules() if isinstance(block, resnet.Block)]


def _count(block: resnet.Block, share: float) -> int:
    return max(1, int(share * block.conv1.out_channels + 1e-9))


def _multiply_adds(module: resnet.ResNet56, share: float = 1.0) -> int:
    """With this share of every block's inner channels."""
    removed = sum(
        (block.conv1.weight[0].numel() + block.conv2.weight[:, 0].numel())
        * (block.conv1.out_channels - _count(block, share))
        * side**2
        for layer, side in ((module.layer1, 32), (module.layer2, 16), (module.layer3, 8))
        for block in _blocks(layer)
    )
    return resnet.multiply_adds(module) - removed


def _grams(module: resnet.ResNet56, inputs: NDArray[np.float32]) -> list[Tensor]:
    """E[h h^T] of every block, float64."""
    sizes = [block.conv1.out_channels for block in _blocks(module)]
    found, hooks = [torch.zeros(size, size, dtype=torch.float64) for size in sizes], []
    for block, gram in zip(_blocks(module), found, strict=True):

        def add(_: nn.Module, given: tuple[Tensor, ...], gram: Tensor = gram) -> None:
            rows = given[0].transpose(0, 1).flatten(1).double()
            gram += rows @ rows.T / rows.shape[1]

        hooks.append(block.conv2.register_forward_pre_hook(add))
    for i in range(0, len(inputs), 128):
        module(torch.from_numpy(inputs[i : i + 128]))
    for hook in hooks:
        hook.remove()
    return found
