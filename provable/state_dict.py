"""The compact network's parameters under the names and dtypes of a user's own module.

The keys of a traced network's parameters are those of the module's state_dict, so a surgery on the graph is
a surgery on the state_dict. What the graph does not know (`num_batches_tracked`, unused buffers) is carried over.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from provable.errors import StateError
from provable.surgery import Cut, Surgery
from verify.network.graph import Network


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
        The same keys in the same order and dtypes; nothing shares memory with the original, and parameters
        that were one tensor still are.

    Raises:
        StateError: a parameter is missing or misshapen, `values` has a parameter the module has no place for,
            or tensors that are tied would have to differ.
    """
    _check(state_dict, network, surgery, values)
    tied: dict[tuple[object, ...], tuple[str, Tensor]] = {}
    result = {}
    for key, tensor in state_dict.items():
        small = _slice(tensor, surgery.parameters.get(key, ()))
        if values is not None and key in values.parameters:
            small = torch.from_numpy(values.parameters[key].copy()).to(tensor.dtype)
        identity = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        first, kept = tied.setdefault(identity, (key, small)) if tensor.numel() else (key, small)
        if not torch.equal(kept, small):
            raise StateError(f"{key!r} and {first!r} are one tensor, but the compact network needs them to differ")
        result[key] = kept
    return result


def _slice(tensor: Tensor, cuts: tuple[Cut, ...]) -> Tensor:
    small = tensor.detach()
    for cut in cuts:
        small = small.index_select(cut.axis, torch.tensor(cut.kept, device=tensor.device))
    return small.clone()


def _check(state_dict: Mapping[str, Tensor], network: Network, surgery: Surgery, values: Network | None) -> None:
    for key in surgery.parameters:
        if key not in state_dict:
            raise StateError(f"the state_dict has no {key!r}, which shrinks; was the network traced from this module?")
    for key, tensor in state_dict.items():
        if key in network.parameters and tuple(tensor.shape) != network.parameters[key].shape:
            raise StateError(f"{key!r} has shape {tuple(tensor.shape)}, the network's {network.parameters[key].shape}")
    if values is None:
        return
    for key, array in values.parameters.items():
        if key in network.parameters and array.shape != surgery.compact.parameters[key].shape:
            raise StateError(f"{key!r} has shape {array.shape}, not that of the compact network")
        if key not in network.parameters and key not in state_dict:
            raise StateError(f"the module has no place for {key!r} (a new bias?); give its layer one")
