"""Corrupted files never crash a parser, and the auditor touches nothing but the files it is given."""

import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts.loading import load_script

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "verify" / "audit" / "golden"


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    return load_script("fuzz_parsers")


def fuzz_all(fuzzer: ModuleType, folder: Path, executions: int, seed: int) -> None:
    for target in fuzzer.targets(folder):
        for good in target.seeds:
            assert fuzzer.execute(target, good) == "read", target.name
        found = fuzzer.fuzz(target, executions, random.Random(f"{seed} {target.name}"))
        assert set(found) <= {"read", "refused"}, (target.name, found)
        assert found["refused"] > executions // 4
        assert len(target.pool) > len(target.seeds)


def test_corrupted_files_are_refused(fuzzer: ModuleType, tmp_path: Path) -> None:
    fuzz_all(fuzzer, tmp_path, 100, 1)


@pytest.mark.slow
def test_many_corrupted_files_are_refused(fuzzer: ModuleType, tmp_path: Path) -> None:
    fuzz_all(fuzzer, tmp_path, 2000, 2)


def test_a_crash_would_be_seen(fuzzer: ModuleType) -> None:
    def broken(data: bytes) -> object:
        return data[10**6]

    target = fuzzer.Target("broken", broken, [b"seed"], ())
    assert fuzzer.fuzz(target, 5, random.Random(0)) == {"CRASH IndexError: index out of range": 5}


WATCHED = """
import sys
from verify.audit.__main__ import describe, own_sources
from verify.audit import audit
import numpy, encodings.latin_1
allowed, seen = set(sys.argv[1:]), []
own_sources()
audit(*sys.argv[1:])  # what is imported late is imported now

def watch(event, arguments):
    if event.split(".")[0] in ("open", "socket", "subprocess", "os", "exec", "compile", "import", "ctypes", "urllib"):
        first = arguments[0] if arguments else ""
        known = event == "open" and isinstance(first, int)  # a file that os.open has opened and reported already
        if not known and str(first) not in allowed:
            seen.append((event, str(arguments)[:120]))

sys.addaudithook(watch)
report = audit(*sys.argv[1:])
found = list(seen)
open("elsewhere", "w").close()
print(report.verdict.name, found, len(seen) > len(found))
"""


@pytest.mark.parametrize(("name", "verdict"), [("v0_real", "ACCEPT"), ("v0_too_small", "REJECT")])
def test_the_auditor_opens_only_what_it_is_given(tmp_path: Path, name: str, verdict: str) -> None:
    """No other file, no network, no process, no code made while it judges; and the watch would notice."""
    paths = [str(GOLDEN / file) for file in (f"{name}.json", "original.onnx", "compact.onnx")]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *paths], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.strip() == f"{verdict} [] True", done.stdout + done.stderr
