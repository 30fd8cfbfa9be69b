"""Calibration inputs: from what a caller has to one checked float32 tensor."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from provable.errors import CalibrationError
from provable.room import IN_MEMORY, pieces, room
from verify.network.graph import Array, Network


def as_batches(source: object) -> list[object]:
    """An array, a tensor, or an iterable of them, as a list of batches; of an iterable, what memory should not hold
    goes to a file as it comes.

    Raises:
        CalibrationError: it is something else, or there is no batch.
    """
    if isinstance(source, np.ndarray | Tensor):
        return [source]
    if not isinstance(source, Iterable) or isinstance(source, str | bytes | dict):
        raise CalibrationError(f"calibration is a {type(source).__name__}; give an array, a tensor or batches of them")
    batches, size = list[object](), 0
    for batch in source:
        large = isinstance(batch, np.ndarray | Tensor) and (size := size + batch.nbytes) > IN_MEMORY
        batches.append(_filed(batch, len(batches)) if large else batch)
    if not batches:
        raise CalibrationError("calibration is empty: it holds no batch at all")
    return batches


def _filed(batch: object, index: int) -> Tensor:
    """The same numbers in a file."""
    tensor = _tensor(batch, index)
    held = room(tuple(tensor.shape), tensor.dtype, in_memory=0)
    return held.copy_(tensor)


def first_input(batches: Sequence[object]) -> Tensor:
    """The first input with batch axis, (1, *shape), to trace a module with.

    Raises:
        CalibrationError: the first batch holds no input of rank 1 or more.
    """
    shape = _shape(batches[0], 0)
    if len(shape) < 2 or not shape[0]:
        raise CalibrationError(f"calibration has shape {shape}, expected (samples, *input shape)")
    return _tensor(_some(batches[0], slice(1)), 0)


def calibration_inputs(network: Network, batches: Sequence[object]) -> Tensor:
    """All inputs as one float32 tensor (samples, *input_shape).

    Raises:
        CalibrationError: empty, another shape, not floating point, or NaN or infinity; the message says where.
    """
    counts = [_count(network, batch, i) for i, batch in enumerate(batches)]
    inputs, start = room((sum(counts), *network.input_shape)), 0
    for i, (batch, count) in enumerate(zip(batches, counts, strict=True)):
        for piece in pieces(count, network.input_shape):
            inputs[start + piece.start : start + piece.stop] = _checked(_tensor(_some(batch, piece), i), i, piece.start)
        start += count
    return inputs


def _some(batch: object, images: slice) -> object:
    return batch[images] if isinstance(batch, np.ndarray | Tensor) else batch


def _shape(batch: object, index: int) -> tuple[int, ...]:
    return tuple(batch.shape) if isinstance(batch, np.ndarray) else tuple(_tensor(batch, index).shape)


def _count(network: Network, batch: object, index: int) -> int:
    """How many inputs a batch of the right kind and shape holds."""
    some = _tensor(_some(batch, slice(1)) if _shape(batch, index) else batch, index)
    shape, expected = _shape(batch, index), f"(samples, {', '.join(map(str, network.input_shape))})"
    if some.ndim == 0 or shape[1:] != network.input_shape:
        raise CalibrationError(f"calibration batch {index} has shape {shape}, expected {expected}")
    if not shape[0]:
        raise CalibrationError(f"calibration batch {index} is empty; expected {expected} with at least one sample")
    return shape[0]


def _tensor(batch: object, index: int) -> Tensor:
    if isinstance(batch, Tensor):
        tensor = batch.detach().cpu()
    elif isinstance(batch, np.ndarray) and batch.dtype.kind in "fiub":
        tensor = torch.from_numpy(np.array(batch.astype(batch.dtype.newbyteorder("="), copy=False)))
    else:
        what = f"dtype {batch.dtype}" if isinstance(batch, np.ndarray) else f"type {type(batch).__name__}"
        raise CalibrationError(f"calibration batch {index} has {what}, expected an array or tensor of floats")
    if not tensor.is_floating_point():
        raise CalibrationError(
            f"calibration batch {index} has dtype {tensor.dtype}, expected floating point in the network's input "
            "format: scale and normalise the inputs as the network expects them"
        )
    return tensor


def _checked(tensor: Tensor, index: int, start: int) -> Tensor:
    """In single precision; `tensor` begins at sample `start` of its batch."""
    single = tensor.to(torch.float32)
    finite = torch.isfinite(single.reshape(len(single), -1)).all(dim=1)
    if not bool(finite.all()):
        row = start + int((~finite).nonzero()[0])
        raise CalibrationError(f"calibration batch {index} holds NaN or infinity (in float32), first in sample {row}")
    return single


LOOKED_AT = 256
"""Inputs behind `directions`, evenly spaced."""


def directions(inputs: Tensor) -> tuple[int, int]:
    """(directions in which the inputs vary, directions in which as many independent ones could).

    The rank of the centred inputs, to single precision: of at most `LOOKED_AT` of them, so the second number is at most
    `LOOKED_AT` - 1, and at most the inputs' dimension.
    """
    some = inputs[:: -(-len(inputs) // LOOKED_AT)].flatten(1)
    some = some / (float(some.abs().max()) or 1.0)
    centred = some - some.mean(0)
    values = torch.linalg.eigvalsh((centred @ centred.T).double())
    noise = 1e-6 * float(values[-1]) + 1e-12 * some.numel()
    return int((values > noise).sum()), min(len(some) - 1, some[0].numel())


def doubts(rows: Sequence[str], inputs: Tensor) -> tuple[str, ...]:
    """What speaks against taking the calibration inputs for independent draws.

    Args:
        rows: a hash of every input.
        inputs: (samples, *input_shape).
    """
    said, distinct = list[str](), len(set(rows))
    if distinct < len(rows):
        said.append(
            f"only {distinct} of the {len(rows)} calibration inputs are distinct: losses on them, held out or not, and "
            "promises that assume independent inputs say less than they seem to"
        )
    rank, possible = directions(inputs)
    if 2 * rank < possible:
        said.append(
            f"the calibration inputs vary in {rank} directions only (rank {rank}, where independent ones could have "
            f"{possible}): layers are fitted on what these inputs show, and on nothing else"
        )
    return tuple(said)


def calibration_labels(labels: object, samples: int) -> NDArray[np.int64]:
    """Classes of the calibration inputs as (samples,) integers.

    Raises:
        CalibrationError: another number of them than of inputs, or not non-negative integers.
    """
    array = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if array.dtype.kind not in "iu" or array.shape != (samples,) or (array.size and int(array.min()) < 0):
        raise CalibrationError(
            f"labels have dtype {array.dtype} and shape {array.shape}, expected one class (an integer >= 0) for each "
            f"of the {samples} calibration inputs"
        )
    return array.astype(np.int64)


def read_calibration(path: Path, key: str | None = None) -> Array:
    """The array in a .npy file, or one array of a .npz file. Nothing is unpickled.

    Args:
        path: the file.
        key: name of the array in a .npz file with several.

    Raises:
        CalibrationError: missing, damaged, of another kind, or it is not clear which array is meant.
    """
    if path.suffix not in (".npy", ".npz"):
        raise CalibrationError(f"{path}: calibration is read from .npy or .npz files")
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r")
        if path.suffix == ".npy":
            return np.asarray(loaded)
        with loaded as archive:
            return np.asarray(archive[_chosen(path, archive.files, key)])
    except FileNotFoundError:
        raise CalibrationError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise CalibrationError(f"{path}: not a readable {path.suffix} file of numbers: {error}") from error


def _chosen(path: Path, names: Sequence[str], key: str | None) -> str:
    if key is not None and key not in names:
        raise CalibrationError(f"{path}: holds no array {key!r}; it has {', '.join(names) or 'none'}")
    if key is None and len(names) != 1:
        raise CalibrationError(f"{path}: holds {len(names)} arrays ({', '.join(names)}); name one with --key")
    return key if key is not None else names[0]
