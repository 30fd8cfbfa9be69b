"""The compact network's parameters under the names and dtypes of a user's own module.

The keys of a traced network's parameters are those of the module's state_dict, so a surgery on the graph is
a surgery on the state_dict. What the graph does not know (`num_batches_tracked`, unused buffers) is carried over.
"""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from provable.errors import StateError
from provable.surgery import Surgery
from verify.network.graph import Network

Identity: TypeAlias = tuple[object, ...]


def shrink_state_dict(
    state_dict: Mapping[str, Tensor], network: Network, surgery: Surgery, *, values: Network | None = None
) -> dict[str, Tensor]:
    """The state_dict of the user's module at the compact widths.

    Args:
        state_dict: of the module `network` was traced from.
        network: the original.
        surgery: what `shrink` made of it.
        values: a network of the compact shapes whose parameters are stored instead of the sliced original's
            (the compensated network).

    Returns:
        The same keys in the same order and dtypes. Nothing shares memory with the original; names of one
        tensor are names of one tensor again, also those the network does not know.

    Raises:
        StateError: a parameter is missing or misshapen, `values` has a parameter the module has no place for,
            or tensors that are tied would have to differ.
    """
    _check(state_dict, network, surgery, values)
    source = surgery.compact if values is None else values
    known = {
        key: _value(tensor, key, surgery, source) for key, tensor in state_dict.items() if key in source.parameters
    }
    tied: dict[Identity, str] = {}
    for key, small in known.items():
        first = tied.setdefault(_identity(state_dict[key], key), key)
        if not torch.equal(known[first], small):
            raise StateError(f"{key!r} and {first!r} are one tensor, but the compact network needs them to differ")
    names = {key: tied.get(_identity(tensor, key)) for key, tensor in state_dict.items()}
    return {key: known[name] if name else state_dict[key].detach().clone() for key, name in names.items()}


def _value(tensor: Tensor, key: str, surgery: Surgery, source: Network) -> Tensor:
    """The compact network's parameter; sliced from the module's own bits wherever surgery alone made it."""
    if source is not surgery.compact:
        return torch.from_numpy(source.parameters[key].copy()).to(tensor)
    small = tensor.detach()
    for cut in surgery.parameters.get(key, ()):
        small = small.index_select(cut.axis, torch.tensor(cut.kept, device=tensor.device))
    return small.clone()


def _identity(tensor: Tensor, key: str) -> Identity:
    """Equal for tensors that are one; an empty tensor is nobody else."""
    return (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, "" if tensor.numel() else key)


def _check(state_dict: Mapping[str, Tensor], network: Network, surgery: Surgery, values: Network | None) -> None:
    for key in surgery.parameters:
        if key not in state_dict:
            raise StateError(f"the state_dict has no {key!r}, which shrinks; was the network traced from this module?")
    for key, tensor in state_dict.items():
        if key in network.parameters and tuple(tensor.shape) != network.parameters[key].shape:
            raise StateError(f"{key!r} has shape {tuple(tensor.shape)}, the network's {network.parameters[key].shape}")
    compact = surgery.compact.parameters
    for key, array in () if values is None else values.parameters.items():
        if key in compact and array.shape != compact[key].shape:
            raise StateError(f"{key!r} has shape {array.shape}, not that of the compact network")
        if key not in state_dict and not (key in compact and np.array_equal(array, compact[key])):
            raise StateError(f"the module has no place for the new values of {key!r} (a new bias? give its layer one)")
