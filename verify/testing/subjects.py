"""What the assertions accept as a network: a `Network`, a file, or a torch module with an example input."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from verify.errors import ModelError
from verify.network.graph import Network
from verify.network.load import load_network

if TYPE_CHECKING:
    import torch

    Subject = Network | Path | str | torch.nn.Module


def as_network(subject: "Subject", example: "torch.Tensor | None" = None) -> Network:
    """The verifier's graph of `subject`.

    Args:
        subject: a `Network`; a path to .onnx, .pt2 or structure.json; or a torch module.
        example: one input of a module, with a batch axis of 1.

    Raises:
        ModelError: it is none of these, the example is missing, or the network cannot be read.
    """
    if isinstance(subject, Network):
        return subject
    if isinstance(subject, str | Path):
        return load_network(subject)
    return _traced(subject, example)


def _traced(module: Any, example: "torch.Tensor | None") -> Network:
    import torch

    from verify.network.read_export import trace

    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"expected a Network, a path or a torch module, got {type(module).__name__}")
    if example is None:
        raise ModelError(f"tracing {type(module).__name__} needs an example input; pass example=torch.zeros(1, ...)")
    return trace(module, example)
