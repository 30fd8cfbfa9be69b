"""The output directory: everything about one compression, there only when it is complete.

    original.onnx          the network that was compressed (the given file's bytes, or written from the graph)
    compact.onnx           the smaller network, without metadata
    compact.folded.onnx    the same with batch norms folded into the layers before them, to be deployed; rounded anew,
                           so certificates, which speak about compact.onnx, do not cover it (only with batch norms)
    compact.safetensors    its parameters  } reload without the user's class:
    structure.json         its graph       } verify.network.structure.read_structure
    state_dict.safetensors for the user's own class at the compact widths (module input only)
    channels.json          where every smaller value's positions come from
    layers.json            per group: promised before, measured after
    calibration_rows.json  SHA-256 of every calibration input, so that later evidence can prove it used others
    summary.json           settings, versions, costs, seconds, digests
    certificate.json       where a deviation was proved on a domain and the auditor accepted it
    search.json            where the size was searched: every size that was tried

Written to a temporary sibling, flushed to disk, renamed. An interrupted run leaves no directory of that name.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors.torch

from provable.errors import OutputError
from provable.folding import fold_batch_norms
from provable.records import Compression
from provable.table import layer_table
from verify.network.files import write_bytes
from verify.network.structure import write_structure
from verify.network.write_onnx import write_onnx

SUMMARY = "summary.json"
VERSION = 1


def check_folder(folder: Path, *, force: bool) -> None:
    """Refuse early what `write_artifacts` would refuse.

    Raises:
        OutputError: `folder` exists (without force), is no output of this program (with force), or its parent
            is missing or cannot be written.
    """
    if not folder.parent.is_dir():
        raise OutputError(f"{folder.parent}: no such directory; create it first")
    if not os.access(folder.parent, os.W_OK):
        raise OutputError(f"{folder.parent}: no permission to write there")
    if not (folder.exists() or folder.is_symlink()):
        return
    if not force:
        raise OutputError(f"{folder}: exists already; choose another directory or use --force to replace it")
    replaceable = (
        folder.is_dir() and not folder.is_symlink() and ((folder / SUMMARY).is_file() or not any(folder.iterdir()))
    )
    if not replaceable:
        raise OutputError(
            f"{folder}: --force replaces only earlier output (a directory with {SUMMARY}) or an empty one"
        )


def write_artifacts(
    result: Compression,
    folder: Path,
    *,
    original: Path | None = None,
    force: bool = False,
    complete: Callable[[Path], object] | None = None,
) -> Path:
    """Write the directory in one step; returns it.

    Args:
        result: what `provable.compress` returned.
        folder: the directory to create.
        original: the ONNX file the network came from, copied byte by byte.
        force: replace an earlier output.
        complete: called with the temporary directory when all files are there, to add to them.

    Raises:
        OutputError: as `check_folder`, or the disk refuses.
    """
    folder = folder.absolute()
    check_folder(folder, force=force)
    try:
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.partial-"))
        try:
            _fill(result, partial, original)
            if complete is not None:
                complete(partial)
            os.chmod(partial, 0o777 & ~_umask())
            _flush(partial)
            _install(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return folder


def _fill(result: Compression, folder: Path, original: Path | None) -> None:
    if original is not None:
        write_bytes(folder / "original.onnx", original.read_bytes())
    else:
        write_onnx(result.original, folder / "original.onnx")
    write_onnx(result.compact, folder / "compact.onnx")
    folded = fold_batch_norms(result.compact)
    if len(folded.nodes) < len(result.compact.nodes):
        write_onnx(folded, folder / "compact.folded.onnx")
    write_structure(result.compact, folder)
    if result.state_dict is not None:
        own = {key: tensor.clone().contiguous() for key, tensor in result.state_dict.items()}
        write_bytes(folder / "state_dict.safetensors", safetensors.torch.save(own))
    _write_json(folder / "channels.json", dict(result.channels))
    _write_json(folder / "layers.json", {"version": VERSION, "groups": [g.as_json() for g in result.groups],
                                         "fits": [asdict(layer) for layer in result.layers]})  # fmt: skip
    _write_json(folder / "calibration_rows.json", {"version": 1, "rows": list(result.calibration_rows)})
    _write_json(folder / SUMMARY, summary(result))
    write_bytes(folder / "layers.txt", layer_table(result).encode())


def summary(result: Compression) -> dict[str, Any]:
    """The content of summary.json."""
    return {
        "version": VERSION,
        "settings": dict(result.settings),
        "before": asdict(result.before),
        "after": asdict(result.after),
        "allocation": {"knob": result.knob, "meaning": result.knob_meaning},
        "kept": {name: list(slots) for name, slots in result.kept.items()},
        "surgery_error": result.surgery_error,
        "calibration": {"samples": result.samples, "sha256": result.calibration_digest},
        "digests": {"original": result.original.digest(), "compact": result.compact.digest()},
        "seconds": dict(result.seconds),
        "versions": {name: _version(name) for name in ("provable-pruning", "torch", "numpy", "scipy", "onnx")},
        "notes": list(result.notes),
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _install(partial: Path, folder: Path) -> None:
    """Rename into place; an earlier output steps aside first and comes back if that fails."""
    if not folder.exists():
        os.rename(partial, folder)
    else:
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old-")) / folder.name
        os.rename(folder, aside)
        try:
            os.rename(partial, folder)
        except OSError:
            os.rename(aside, folder)
            raise
        finally:
            shutil.rmtree(aside.parent, ignore_errors=True)
    _flush(folder.parent)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
