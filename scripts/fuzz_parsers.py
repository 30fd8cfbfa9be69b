"""Fuzz every parser: corrupted models, domains, structures and certificates are refused, and never crash or hang.

Each parser must answer with a value or with an error it documents; anything else is a crash. Half of the inputs are
structured corruptions of good files (a byte, a length, a number, a token, a copied or cut block); the other half is
guided by coverage: inputs that reach a line of the parser that none has reached before join the pool. Only the lines of
the parser's own packages are counted.

    python scripts/fuzz_parsers.py --executions 5000
"""

import argparse
import base64
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

from verify.attestation import envelope
from verify.attestation.statement import PREDICATE_TYPE, STATEMENT_TYPE, decode, encode
from verify.audit import certificate as audit_certificate
from verify.audit import files as audit_files
from verify.audit import onnx_file as audit_onnx
from verify.audit import program as audit_program
from verify.audit import structure_file as audit_structure
from verify.certificate.emit import emit_certificate
from verify.certificate.record import sealed
from verify.errors import InputError
from verify.network import read_onnx, structure
from verify.network.graph import Network, build
from verify.network.write_onnx import write_onnx
from verify.spec import vnnlib
from verify.spec.box import Box
from verify.spec.deviation import Leaf, Split
from verify.statistical import certificate_file, disjoint
from verify.statistical.certificate import certify_sample

LONGEST = 10.0  # seconds: longer counts as a hang
REFUSALS = (audit_program.Malformed, audit_program.Unsupported, InputError)
TOKENS = [b"0", b"-1", b"9" * 30, b"1e999", b"NaN", b"null", b"true", b'"', b"{", b"}", b"[", b"]", b"(", b")", b"\x00",
          b"\xff\xff\xff\xff\x0f", b"\x80" * 9, b"[" * 100, b"(" * 100, b"<=", b"X_0", b"Y_0", b"1p-1", b" ", b"\n",
          b"1/0", b"4294967296", b"9223372036854775807", b"-9223372036854775808", b"or", b"and"]  # fmt: skip


@dataclass
class Target:
    """A parser, the good inputs it starts from, and the files whose lines count."""

    name: str
    parse: Callable[[bytes], object]
    seeds: list[bytes]
    sources: tuple[str, ...]
    pool: list[bytes] = field(default_factory=list)
    lines: set[tuple[str, int]] = field(default_factory=set)
    open: dict[CodeType, set[int] | None] = field(default_factory=dict)  # lines not reached; None: of another package

    def learn(self, reached: set[tuple[str, int]]) -> bool:
        """Whether there are lines among them that no input had reached."""
        new = reached - self.lines
        self.lines |= new
        for code, lines in self.open.items() if new else ():
            if lines:
                lines -= {line for file, line in new if file == code.co_filename}
        return bool(new)


def targets(folder: Path) -> list[Target]:
    """All parsers, with small good files as seeds."""
    rng = np.random.default_rng(0)
    nets = [_dense(rng), _images(rng)]
    onnx = []
    for i, net in enumerate(nets):
        write_onnx(net, folder / f"{i}.onnx")
        onnx.append((folder / f"{i}.onnx").read_bytes())
    graph, weights = (path.read_bytes() for path in structure.write_structure(nets[0], folder))
    network, box = folder / "0.onnx", Box.from_floats([0, 0], [1, 1])
    emit_certificate(
        folder / "c.json", original=network, compact=network, boxes=[box],
        epsilon=Fraction(1, 3), lift=(), rule="pair_zonotope", parameters={"symbols": 9},
        trees=[Split(0, Fraction(1, 2), Leaf(), Leaf())],
    )  # fmt: skip
    certificate = (folder / "c.json").read_bytes()
    own, other = "verify/audit/", "verify/network/"
    both = folder / "structure.json", folder / "weights.safetensors"

    def network_structure(a: bytes, b: bytes) -> object:
        both[0].write_bytes(a)
        both[1].write_bytes(b)
        return structure.read_structure(*both)

    def domain(data: bytes) -> object:
        path = folder / "domain.vnnlib"
        path.write_bytes(data)
        return vnnlib.read_vnnlib(path)

    def statistical(data: bytes) -> object:
        path = folder / "statistical.json"
        path.write_bytes(data)
        return certificate_file.read_certificate(path)

    def rows(data: bytes) -> object:
        path = folder / "rows.json"
        path.write_bytes(data)
        return disjoint.read_calibration_rows(path)

    return [
        Target("audit certificate", lambda d: audit_certificate.read_certificate(_resealed(d)), [certificate], (own,)),
        Target("audit ONNX", audit_onnx.read_onnx, onnx, (own,)),
        Target("audit structure", lambda d: audit_structure.read_structure(d, weights), [graph], (own,)),
        Target("audit safetensors", lambda d: audit_structure.read_structure(graph, d), [weights], (own,)),
        Target("audit JSON", audit_files.read_json, [certificate, graph], (own,)),
        Target("network ONNX", read_onnx.read_onnx, onnx, (other,)),
        Target("network structure", lambda d: network_structure(d, weights), [graph], (other,)),
        Target("network safetensors", lambda d: network_structure(graph, d), [weights], (other,)),
        Target("domain VNN-LIB", domain, [DOMAIN], ("verify/spec/",)),
        Target("tree", _walk, [b"0:1p-1 . 1:1p-2 . .", b"z2/3 . y4/0 .+1@0=3p-4;-0@1=5p-9 ."], (own,)),
        Target("statistical", statistical, [_statistical(nets[0], folder)], ("verify/statistical/",)),
        Target("calibration rows", rows, [json.dumps({"version": 1, "rows": ["0a" * 32]}).encode()], (own,)),
        Target("statement", _statement, [STATEMENT], ("verify/attestation/", own)),
        Target("number", _number, [b"-12.5e-3", b"7/9", b"3p-4"], (own,)),
    ]


def _statistical(network: Network, folder: Path) -> bytes:
    """A certificate about a network and itself."""
    path, inputs = folder / "s.json", np.linspace(-1, 1, 40).reshape(20, 2)
    found = certify_sample(network, network, inputs, calibration_rows=(), epsilon="0.5", coverage="0.5", cap="1")
    certificate_file.write_certificate(found, path)
    return path.read_bytes()


STATEMENT = json.dumps(
    {
        "payloadType": envelope.PAYLOAD_TYPE,
        "payload": base64.b64encode(
            encode({"_type": STATEMENT_TYPE, "subject": [], "predicateType": PREDICATE_TYPE, "predicate": {}})
        ).decode(),
        "signatures": [{"keyid": "", "sig": "AAAA"}],
    }
).encode()


def _statement(data: bytes) -> object:
    return decode(envelope.payload_of(data, None))


DOMAIN = b"""(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(assert (or (and (>= X_0 -0.5) (<= X_0 0.25) (>= X_1 0) (<= X_1 1e-3))
            (and (>= X_0 1) (<= X_0 2) (>= X_1 0) (<= X_1 1))))
(assert (<= Y_0 3.5))
"""


def _walk(data: bytes) -> object:
    box = ((Fraction(0), Fraction(1)),) * 2
    return sum(1 for _ in audit_certificate.walk(data.decode("latin-1"), box))


def _number(data: bytes) -> object:
    return audit_files.number(data.decode("latin-1"), "here")


def _resealed(data: bytes) -> bytes:
    """The certificate under a seal that fits, so that the parser behind it is reached."""
    return "".join(sealed([data.decode("latin-1").rsplit(' "seal"', 1)[0]])).encode("latin-1")


def _dense(rng: np.random.Generator) -> Any:
    parameters = {"w": rng.normal(size=(3, 2)).astype(np.float32), "b": np.zeros(3, np.float32)}
    steps = [("h", "linear", ("x",), {"weight": "w", "bias": "b"}, {}), ("y", "relu", ("h",), {}, {})]
    return build("x", (2,), steps, "y", parameters)


def _images(rng: np.random.Generator) -> Any:
    conv = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    window = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
    steps = [
        ("c", "conv", ("x",), {"weight": "w"}, conv), ("r", "relu", ("c",), {}, {}),
        ("m", "max_pool", ("r",), {}, window), ("y", "reshape", ("m",), {}, {"shape": (8,)}),
    ]  # fmt: skip
    return build("x", (1, 4, 4), steps, "y", {"w": rng.normal(size=(2, 1, 3, 3)).astype(np.float32)})


def corrupted(data: bytes, pool: list[bytes], random_source: random.Random) -> bytes:
    """One to four changes of a file."""
    found = bytearray(data)
    for _ in range(random_source.choice((1, 1, 1, 2, 4))):
        at, size = random_source.randrange(len(found) + 1), random_source.choice((1, 2, 4, 8, 30, 200))
        change = random_source.randrange(9)
        if change == 0 and found:
            found[min(at, len(found) - 1)] ^= 1 << random_source.randrange(8)
        elif change == 1 and found:
            found[min(at, len(found) - 1)] = random_source.randrange(256)
        elif change == 2:
            del found[at : at + size]
        elif change == 3:
            found[at:at] = found[at : at + size]
        elif change == 4:
            found[at:at] = random_source.choice(TOKENS)
        elif change == 5:
            found[at : at + size] = random_source.choice(TOKENS)
        elif change == 6:
            other = random_source.choice(pool)
            start = random_source.randrange(len(other) + 1)
            found[at : at + size] = other[start : start + size]
        elif change == 7:
            del found[at:]
        else:
            _new_number(found, random_source)
    return bytes(found)


def _new_number(found: bytearray, random_source: random.Random) -> None:
    """Another number in the place of one that is written in digits."""
    starts = [i for i, byte in enumerate(found) if 48 <= byte <= 57]
    if starts:
        start = random_source.choice(starts)
        end = start
        while end < len(found) and 48 <= found[end] <= 57:
            end += 1
        found[start:end] = random_source.choice([*TOKENS[:4], b"1", b"2", b"65536", b"00", b"-0"])


@contextmanager
def traced(target: Target, reached: set[tuple[str, int]]) -> Iterator[None]:
    """Collect the lines of the target's own sources that run; of functions known to the last line only the call."""

    def local(frame: Any, event: str, _: object) -> Any:
        if event == "line":
            reached.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def start(frame: Any, event: str, _: object) -> Any:
        code = frame.f_code
        if code not in target.open:
            own = any(part in code.co_filename for part in target.sources)
            target.open[code] = {line for *_, line in code.co_lines() if line} - {code.co_firstlineno} if own else None
        if target.open[code] is None:
            return None
        reached.add((code.co_filename, code.co_firstlineno))
        return local if target.open[code] else None

    before = sys.gettrace()
    sys.settrace(start)
    try:
        yield
    finally:
        sys.settrace(before)


def execute(target: Target, data: bytes) -> str:
    """ "read", "refused", "HANG", or the name of an error that is not documented."""
    begin = time.perf_counter()
    try:
        target.parse(data)
        outcome = "read"
    except REFUSALS:
        outcome = "refused"
    except Exception as error:
        outcome = f"CRASH {type(error).__name__}: {str(error)[:80]}"
    return "HANG" if time.perf_counter() - begin > LONGEST else outcome


def fuzz(target: Target, executions: int, random_source: random.Random, guided: float = 0.5) -> "Counter[str]":
    """Corrupt and parse; `guided` is the share of executions that are traced for coverage."""
    target.pool = target.pool or list(target.seeds)
    found: Counter[str] = Counter()
    for _ in range(executions):
        data = corrupted(random_source.choice(target.pool), target.pool, random_source)
        if random_source.random() >= guided:
            found[execute(target, data)] += 1
            continue
        reached: set[tuple[str, int]] = set()
        with traced(target, reached):
            outcome = execute(target, data)
        found[outcome] += 1
        if target.learn(reached):
            target.pool.append(data)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=5000, help="over all parsers together")
    parser.add_argument("--guided", type=float, default=0.5, help="share that is guided by coverage")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong, total, begin = Counter[str](), 0, time.perf_counter()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        chosen = targets(Path(folder))
        print(f"{'parser':<22}{'executions':>12}{'read':>10}{'refused':>10}{'crash, hang':>13}{'lines':>8}{'pool':>7}")
        for target in chosen:
            count = -(-options.executions // len(chosen))
            found = fuzz(target, count, random.Random(f"{options.seed} {target.name}"), options.guided)
            bad = {k: v for k, v in found.items() if k not in ("read", "refused")}
            wrong.update({f"{target.name}: {k}": v for k, v in bad.items()})
            total += count
            columns = f"{count:>12}{found['read']:>10}{found['refused']:>10}{sum(bad.values()):>13}"
            print(f"{target.name:<22}{columns}{len(target.lines):>8}{len(target.pool):>7}", flush=True)
    print(f"{total} executions in {time.perf_counter() - begin:.0f} s, {sum(wrong.values())} crashes and hangs")
    for message, count in wrong.most_common(20):
        print(f"{count:>8}  {message}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
