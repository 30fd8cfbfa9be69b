"""What a search has found out about its candidates, so that a killed search continues and gives the identical result.

    run.json           what the answers depend on, hashed: network, inputs, settings, versions (journal.py)
    answer-0000.json   one candidate: its name, and what was found
    candidate/         the journal of the candidate that is being compressed

An answer is asked for once; later runs read it. Networks are not kept: the few that are still needed are made again,
which gives the same bits, and `same` refuses any others. What depends on the clock, such as a proof that ran out of
time, is settled by the run that found it out.

Not claimed: identical bits on another machine or with another number of threads, which the hash therefore covers.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from provable.errors import OutputError
from provable.journal import Journal
from verify.network.files import write_bytes
from verify.network.graph import Network

CANDIDATE = "candidate"


@dataclass
class Answers:
    """The answers of one search in a folder, which is made when there is something to write.

    Attributes:
        folder: where they are; None: nothing is kept.
        known: name of a candidate -> what was found.
        earlier: how many of them an earlier run found.
    """

    folder: Path | None
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    earlier: int = 0
    _key: str = ""

    @staticmethod
    def at(folder: Path | None, key: str) -> "Answers":
        """Take up the search with this key; what another search left in the folder is discarded."""
        answers = Answers(folder, _key=key)
        if folder is None:
            return answers
        Journal(folder).open(key)
        while (path := answers._path(folder, len(answers.known))).exists():
            name, found = _read(path)
            answers.known[name] = found
        answers.earlier = len(answers.known)
        return answers

    def keep(self, name: str, found: Mapping[str, Any]) -> None:
        """A candidate is settled; its own journal is of no use any more."""
        if self.folder is not None:
            self.folder.mkdir(exist_ok=True)
            write_bytes(self.folder / "run.json", json.dumps({"key": self._key}).encode())
            content = json.dumps({"name": name, "found": dict(found)}).encode()
            write_bytes(self._path(self.folder, len(self.known)), content)
            Journal(self.folder / CANDIDATE).discard()
        self.known[name] = dict(found)

    def candidate(self) -> Path | None:
        """Where the candidate under way keeps its journal; the folder around it exists."""
        if self.folder is None:
            return None
        if not self.folder.exists():
            self.folder.mkdir()
            write_bytes(self.folder / "run.json", json.dumps({"key": self._key}).encode())
        return self.folder / CANDIDATE

    def _path(self, folder: Path, index: int) -> Path:
        return folder / f"answer-{index:04}.json"


def same(network: Network, found: Mapping[str, Any]) -> Network:
    """The network, made again, if it is the one that the answer is about.

    Raises:
        OutputError: it is another one.
    """
    if network.digest() != found["digest"]:
        raise OutputError(
            "a candidate that an interrupted search had accepted came out differently this time, so its answers cannot "
            "be used; start afresh with --no-resume"
        )
    return network


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        record = json.loads(path.read_bytes())
        return str(record["name"]), dict(record["found"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OutputError(f"{path}: damaged, cannot continue from it; start afresh with --no-resume") from error
