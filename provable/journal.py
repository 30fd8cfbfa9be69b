"""A run's journal: what is finished, so that a killed run continues and gives the identical result.

    run.json                what the result depends on, hashed: network, inputs, settings, random state, versions
    allocation.json         slots per group (a measured latency would come out differently)
    site-0000.safetensors   parameters that the first site changed; in its header what was chosen and measured there
    network.safetensors     the refinement of the whole network: where it stands

Every file is written in one step; a run that is killed in the middle of one leaves the files before it. A journal of
another run is discarded. Nothing in it is ever unpickled.

Not claimed: identical bits on another machine or with another number of threads, which the hash therefore covers.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.random import Generator

from provable.allocation.budget import Allocation
from provable.bounds.a_priori import APrioriBound
from provable.compensation.network_refinement import Descent
from provable.compensation.sequential import LayerFit, Polish
from provable.compensation.steps import Step
from provable.errors import OutputError
from provable.selection.evidence import Choice
from verify.network.files import write_bytes
from verify.network.graph import Array

VERSION = 1
DESCENT = "network.safetensors"


def run_key(network_digest: str, inputs: Sequence[Array], settings: Mapping[str, Any], random: Generator) -> str:
    """SHA-256 over everything that the result depends on."""
    data = hashlib.sha256()
    for array in inputs:
        data.update(np.ascontiguousarray(array).data)
    known = {
        "version": VERSION, "network": network_digest, "inputs": data.hexdigest(),
        "settings": dict(settings), "random": _random_state(random), "torch": torch.__version__,
        "numpy": np.__version__, "threads": torch.get_num_threads(),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


@dataclass
class Journal:
    """The journal of one run in a folder, which is made when there is something to write.

    Attributes:
        folder: where it is.
        said: what the user should know about taking up an earlier run; empty if there was none.
    """

    folder: Path
    said: str = ""
    _key: str = ""

    def open(self, key: str) -> None:
        """Take up the run with this key; a journal of another run is discarded."""
        self._key = key
        if not self.folder.exists():
            return
        if _json(self.folder / "run.json").get("key") == key:
            self.said = f"continued an interrupted run: {len(self._sites())} layers were finished"
        else:
            self.said = "an interrupted run with other inputs or settings was there; this one started afresh"
            self.discard()

    def allocation(self) -> Allocation | None:
        """The allocation, if it is known already."""
        known = _json(self.folder / "allocation.json")
        return Allocation(known["counts"], known["knob"], known["meaning"]) if known else None

    def keep_allocation(self, allocation: Allocation) -> None:
        """Write the allocation down."""
        self.folder.mkdir(exist_ok=True)
        _write(self.folder / "run.json", {"key": self._key})
        _write(self.folder / "allocation.json", {**asdict(allocation), "counts": dict(allocation.counts)})

    def read(self) -> list[tuple[Step, dict[str, Any]]]:
        """The finished sites: what changed, and the rest of their header."""
        return [_site(path) for path in self._sites()]

    def write(self, index: int, step: Step, more: Mapping[str, Any]) -> None:
        """Site number `index` is finished."""
        header = {"roles": step.roles, "kept": step.kept, "layer": asdict(step.layer), **more}
        arrays = {key: np.ascontiguousarray(array) for key, array in step.parameters.items()}
        data = safetensors.numpy.save(arrays, metadata={"step": json.dumps(header, default=_plain)})
        write_bytes(self._path(index), data)

    def descent(self) -> Descent | None:
        """Where the refinement of the whole network stands, if it has begun."""
        path = self.folder / DESCENT
        if not path.exists():
            return None
        header, tensors = _open(path, "descent")
        return Descent(**header, tensors={key: torch.from_numpy(array) for key, array in tensors.items()})

    def keep_descent(self, descent: Descent) -> None:
        """Write it down."""
        header = {"step": descent.step, "before": descent.before, "smallest": descent.smallest}
        arrays = {key: np.ascontiguousarray(tensor.numpy()) for key, tensor in descent.tensors.items()}
        data = safetensors.numpy.save(arrays, metadata={"descent": json.dumps(header)})
        write_bytes(self.folder / DESCENT, data)

    def discard(self) -> None:
        """Remove everything; `run.json` first, so that a removal cut short leaves no run to continue."""
        (self.folder / "run.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, index: int) -> Path:
        return self.folder / f"site-{index:04}.safetensors"

    def _sites(self) -> list[Path]:
        """The files of the sites without a gap."""
        found: list[Path] = []
        while self._path(len(found)).exists():
            found.append(self._path(len(found)))
        return found


@dataclass
class Notes:
    """The sequential pass's memory (`compensation.steps.Memory`): a journal, and everything drawn or chosen on the way.

    Attributes:
        journal: where steps go; None: nowhere.
        random: the selection's generator, set to where the last finished site left it.
        choices: group -> choice, filled in for finished sites.
        polish: what refines; its generator and outcomes are kept, too.
        descent: the polish's generator.
    """

    journal: Journal | None
    random: Generator
    choices: dict[str, Choice]
    polish: Polish | None
    descent: torch.Generator | None
    _written: int = field(default=0)

    def steps(self) -> Sequence[Step]:
        """What an earlier run finished; generators and choices are brought to where it stood."""
        known = self.journal.read() if self.journal else []
        self._written = len(known)
        for _, header in known:
            self.choices.update({name: _choice(record) for name, record in header["choices"].items()})
            if self.polish is not None and header["layer"]["refined"] is not None:
                self.polish.outcomes[header["layer"]["node"]] = tuple(header["layer"]["refined"])
        if known:
            self.random.bit_generator.state = known[-1][1]["random"]
            if self.descent is not None:
                self.descent.set_state(torch.tensor(known[-1][1]["descent"], dtype=torch.uint8))
        return [step for step, _ in known]

    def keep(self, step: Step) -> None:
        """Write a finished step down."""
        if self.journal is None:
            return
        choices = {name: asdict(self.choices[name]) for name in step.kept}
        drawn = None if self.descent is None else self.descent.get_state().tolist()
        more = {"choices": choices, "random": _random_state(self.random), "descent": drawn}
        self.journal.write(self._written, step, more)
        self._written += 1


def _open(path: Path, what: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """(header, arrays) of a file of this journal."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return json.loads(file.metadata()[what]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError) as error:
        raise OutputError(f"{path}: damaged, cannot continue from it; start afresh with --no-resume") from error


def _site(path: Path) -> tuple[Step, dict[str, Any]]:
    header, parameters = _open(path, "step")
    record = header["layer"]
    refined = tuple(record["refined"]) if record["refined"] else None
    layer = LayerFit(**{**record, "refined": refined})
    kept = {name: tuple(slots) for name, slots in header["kept"].items()}
    return Step(parameters, header["roles"], kept, layer), header


def _choice(record: Mapping[str, Any]) -> Choice:
    bound = APrioriBound(**record["bound"]) if record["bound"] else None
    factors = tuple(record["factors"]) if record["factors"] is not None else None
    return Choice(tuple(record["kept"]), bound, factors, record["method"])


def _random_state(random: Generator) -> Any:
    return json.loads(json.dumps(random.bit_generator.state, default=_plain))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else dict(value)


def _json(path: Path) -> dict[str, Any]:
    """The content, empty if there is none or it is no JSON object."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_bytes(path, json.dumps(content, default=_plain).encode())
