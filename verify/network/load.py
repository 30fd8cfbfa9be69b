"""Networks and modules by path or name, as commands take them.

    net.onnx                      an ONNX file
    net.pt2                       an exported program (nothing in it is unpickled)
    structure.json, or its folder a graph of this package, with its safetensors file
    package.module:factory        a function that returns a torch module, with weights from a safetensors file;
                                  the package is found as Python finds it, and in the current folder

Heavy libraries are imported only when their kind of file is read. No pickle is ever loaded: weights come
from safetensors.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verify.errors import ModelError
from verify.network.graph import Network

if TYPE_CHECKING:
    from torch import nn

EXPECTED = ".onnx, .pt2, structure.json (or its folder), or package.module:factory"


def load_network(
    source: Path | str, *, weights: Path | str | None = None, example_shape: Sequence[int] | None = None
) -> Network:
    """The network that a path or a name stands for.

    Args:
        source: see the list above.
        weights: safetensors file with the state_dict (for a factory) or the parameters (for structure.json).
        example_shape: shape of one input sample without batch axis; needed for a factory.

    Raises:
        ModelError: nothing is there, it is of no known kind, or it cannot be read.
    """
    text, path = str(source), Path(source)
    if _is_factory(text, path):
        return _from_factory(text, weights, example_shape)
    if path.suffix in (".onnx", ".pt2") and weights is not None:
        raise ModelError(f"{path}: holds its own weights; leave out {weights}")
    if path.suffix == ".onnx":
        from verify.network.read_onnx import read_onnx

        return read_onnx(path)
    if path.suffix == ".pt2":
        from verify.network.read_export import read_pt2

        return read_pt2(path)
    if path.suffix == ".json" or path.is_dir():
        return _from_structure(path, weights)
    reason = "unknown kind of file" if path.exists() else "no such file"
    raise ModelError(f"{path}: {reason}; expected {EXPECTED}")


def load_module(spec: str, weights: Path | str | None = None) -> "nn.Module":
    """The torch module that ``package.module:factory`` returns, in eval mode, with weights from safetensors.

    Raises:
        ModelError: the module or the function does not exist, fails, or returns something else, or the
            weights do not fit it exactly.
    """
    from torch import nn

    module_name, _, factory_name = spec.partition(":")
    factory = _attribute(_import(module_name, spec), factory_name, spec)
    try:
        module = factory()
    except Exception as error:
        raise ModelError(f"{spec}: calling it without arguments failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"{spec}: returned {type(module).__name__}, expected a torch.nn.Module")
    if weights is not None:
        _load_weights(module, Path(weights), spec)
    return module.eval()


def _is_factory(text: str, path: Path) -> bool:
    before, colon, after = text.rpartition(":")
    return (
        bool(colon) and after.isidentifier() and all(p.isidentifier() for p in before.split(".")) and not path.exists()
    )


def _from_factory(spec: str, weights: Path | str | None, example_shape: Sequence[int] | None) -> Network:
    import torch

    from verify.network.read_export import trace

    if example_shape is None:
        raise ModelError(f"{spec}: the shape of one input sample is needed to trace a module; pass example_shape")
    module = load_module(spec, weights)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    example = torch.rand(1, *example_shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return trace(module, example)


def _from_structure(path: Path, weights: Path | str | None) -> Network:
    from verify.network.structure import STRUCTURE_FILE, read_structure

    structure = path / STRUCTURE_FILE if path.is_dir() else path
    if not structure.exists():
        raise ModelError(f"{structure}: no such file; expected {EXPECTED}")
    return read_structure(structure, Path(weights) if weights is not None else _weights_beside(structure))


def _weights_beside(structure: Path) -> Path:
    usual, found = structure.parent / "compact.safetensors", sorted(structure.parent.glob("*.safetensors"))
    if usual in found:
        return usual
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise ModelError(f"{structure.parent}: expected one .safetensors file beside {structure.name}, found {names}")
    return found[0]


def _import(name: str, spec: str) -> Any:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ModelError(f"{spec}: importing {name!r} failed: {type(error).__name__}: {error}") from error


def _attribute(module: Any, name: str, spec: str) -> Any:
    if not callable(getattr(module, name, None)):
        raise ModelError(f"{spec}: {module.__name__} has no function or class {name!r}")
    return getattr(module, name)


def _load_weights(module: "nn.Module", path: Path, spec: str) -> None:
    import safetensors
    import safetensors.torch

    from verify.network.files import read_bytes

    if path.suffix != ".safetensors":
        raise ModelError(f"{path}: expected a .safetensors file; pickled weights are never loaded")
    try:
        state = safetensors.torch.load(read_bytes(path, "the weights of a module (.safetensors)"))
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: not a safetensors file, or damaged: {error}") from None
    wanted = module.state_dict()
    optional = {k for k, v in wanted.items() if not v.is_floating_point()}  # counters such as num_batches_tracked
    missing, extra = sorted(set(wanted) - set(state) - optional), sorted(set(state) - set(wanted))
    if missing or extra:
        raise ModelError(f"{path} does not fit {spec}: missing {missing[:5]}, unexpected {extra[:5]}")
    try:
        module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{path} does not fit {spec}: {' '.join(str(error).split())}") from None
