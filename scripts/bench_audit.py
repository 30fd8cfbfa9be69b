"""What an audit costs: 1,000 leaves of a pair with 300 ReLUs, and auditing time over proving time.

The pair has six hidden layers of fifty ReLUs, as the networks of ACAS Xu; a tenth of the neurons is dropped and the
other weights move by a thousandth. Its tree has a thousand leaves. For the ratio the prover is given some seconds on
the same pair and domain, and its own certificate is written and audited.

With --acasxu, also networks of ACAS Xu on the regions of properties 3 and 4, compressed and proved as by
scripts/reproduce_acasxu.py: for each the seconds of the proof, of writing the certificate once, of auditing it once,
and of everything that happens before a certificate is announced. Processor seconds of one thread.

    OMP_NUM_THREADS=1 python scripts/bench_audit.py --acasxu 1_1 1_2 3_2 3_3
"""

import argparse
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from verify.audit import audit
from verify.certificate.emit import emit_certificate
from verify.certificate.issue import issue_certificate
from verify.formal.deviation import verify_deviation
from verify.network.graph import Network, build
from verify.network.read_onnx import read_onnx
from verify.network.write_onnx import write_onnx
from verify.spec.box import Box
from verify.spec.deviation import Leaf, Split, Tree
from verify.spec.vnnlib import read_vnnlib

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "acasxu"


def pair(rng: np.random.Generator, layers: int, width: int, inputs: int = 5) -> tuple[Network, Network, dict[str, Any]]:
    """A dense network, its compact twin, and the content of channels.json."""
    first, second, steps, previous = {}, {}, [], "x"
    kept, values = np.arange(inputs), {}
    for i in range(layers + 1):
        rows = width if i < layers else inputs
        size = inputs if i == 0 else width
        weight = (rng.normal(size=(rows, size)) / np.sqrt(size)).astype(np.float32)
        bias = (rng.normal(size=rows) * 0.1).astype(np.float32)
        stay = np.sort(rng.permutation(rows)[: rows - rows // 10]) if i < layers else np.arange(rows)
        noise = 1 + 1e-3 * rng.normal(size=(len(stay), len(kept)))
        first |= {f"w{i}": weight, f"b{i}": bias}
        second |= {f"w{i}": (weight[np.ix_(stay, kept)] * noise).astype(np.float32), f"b{i}": bias[stay]}
        steps.append((f"h{i}", "linear", (previous,), {"weight": f"w{i}", "bias": f"b{i}"}, {}))
        previous = f"h{i}"
        if i < layers:
            steps.append((f"a{i}", "relu", (previous,), {}, {}))
            previous = f"a{i}"
            values |= {name: {"axis": 0, "kept": stay.tolist()} for name in (f"h{i}", f"a{i}")}
        kept = stay
    networks = (build("x", (inputs,), steps, previous, weights) for weights in (first, second))
    return *networks, {"version": 1, "values": values}


def grown(box: Box, leaves: int) -> Tree:
    """A balanced tree that halves the coordinates in turn."""
    if leaves == 1:
        return Leaf()
    middle = box.middle()
    if middle is None:
        raise ValueError(f"{box} is too small for {leaves} leaves")
    low, high = box.halves(*middle)
    return Split(*middle, grown(low, leaves - leaves // 2), grown(high, leaves // 2))


def acasxu(names: list[str], properties: list[int], data: Path) -> None:
    """One line per network and property, and the sums."""
    from provable import compress

    titles = ("network", "leaves", "prove s", "emit s", "audit s", "issue s", "emit / prove", "audit / prove")
    print(("{:<10}" + "{:>14}" * 7).format(*titles))
    sums = np.zeros(4)
    for name, number in ((name, number) for number in properties for name in names):
        network = data / f"ACASXU_run2a_{name}_batch_2000.onnx"
        (box,) = read_vnnlib(data / f"prop_{number}.vnnlib").boxes
        original = read_onnx(network)
        samples = box.sample(np.random.default_rng([0, 0]), 20_000).reshape(-1, *original.input_shape)
        compression = compress(
            original, samples.astype(np.float32), keep={"channels": 0.8}, recipe="greedy", generator=0
        )
        with tempfile.TemporaryDirectory() as folder:
            place = compression.save(Path(folder) / "out", original=network)
            files = {"original": place / "original.onnx", "compact": place / "compact.onnx"}
            compact = read_onnx(files["compact"])
            times = [time.process_time()]
            found = verify_deviation(
                original, compact, [box], channels=compression.channels, timeout=60.0, ratio=1.47, floor=0.98e-3,
                generator=np.random.default_rng(0),
            )  # fmt: skip
            times.append(time.process_time())
            issued = issue_certificate(place / "c.json", found, boxes=[box], **files)
            times.append(time.process_time())
            if not isinstance(issued, tuple):
                print(f"{name} phi{number}: {found.verdict.value}, not certified")
                continue
            emit_certificate(
                place / "again.json", **files, boxes=[box], epsilon=issued[0], rule=found.rule,
                parameters=found.parameters, lift=found.lift, trees=found.trees,
            )  # fmt: skip
            times.append(time.process_time())
            report = audit(place / "again.json", **files)
            times.append(time.process_time())
        prove, issue, emit, check = np.diff(times).tolist()
        sums += (prove, emit, check, issue)
        print(
            f"{f'{name} phi{number}':<10}{report.leaves:>14}{prove:>14.3f}{emit:>14.3f}{check:>14.3f}{issue:>14.3f}"
            f"{emit / prove:>14.2f}{check / prove:>14.2f}  {report.verdict.name}"
        )
    prove, emit, check, issue = sums.tolist()
    print(
        f"{'all':<24}{prove:>14.3f}{emit:>14.3f}{check:>14.3f}{issue:>14.3f}{emit / prove:>14.2f}{check / prove:>14.2f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leaves", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=50)
    parser.add_argument("--radius", default="1/50", help="half the width of the box")
    parser.add_argument("--prove", type=float, default=20.0, help="seconds for the prover; 0: no ratio")
    parser.add_argument("--acasxu", nargs="+", default=[], metavar="NETWORK", help="such as 1_1")
    parser.add_argument("--properties", nargs="+", type=int, default=[3, 4])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the networks of ACAS Xu")
    options = parser.parse_args()
    if options.acasxu:
        acasxu(options.acasxu, options.properties, options.data)
    original, compact, channels = pair(np.random.default_rng(0), options.layers, options.width)
    box = Box.around([0.0] * 5, Fraction(options.radius))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"original": folder / "original.onnx", "compact": folder / "compact.onnx"}
        write_onnx(original, files["original"])
        write_onnx(compact, files["compact"])
        found = None
        if options.prove:
            begin = time.process_time()
            found = verify_deviation(
                original, compact, [box], channels=channels, timeout=options.prove, generator=np.random.default_rng(0)
            )
            proving, begin = time.process_time() - begin, time.process_time()
            issue_certificate(folder / "own.json", found, boxes=[box], **files)
            issuing, begin = time.process_time() - begin, time.process_time()
            report = audit(folder / "own.json", **files)
            spent = time.process_time() - begin
            print(
                f"prover: {found.leaves} leaves in {proving:.1f} s; writing and auditing before it is announced "
                f"{issuing:.1f} s; one audit {spent:.2f} s ({report.verdict.name}); audit / proof {spent / proving:.2f}"
            )
        for symbols in (found.parameters["symbols"] if found else 4096, 0):
            emit_certificate(
                folder / "c.json", **files, boxes=[box], epsilon=Fraction(10**9), rule="pair_zonotope",
                parameters={"symbols": symbols}, lift=found.lift if found else (), trees=[grown(box, options.leaves)],
            )  # fmt: skip
            begin = time.process_time()
            report = audit(folder / "c.json", **files)
            spent = time.process_time() - begin
            print(
                f"{report.verdict.name} {report.leaves} leaves, {options.layers * options.width} ReLUs, {symbols} "
                f"symbols: {spent:.2f} s, {(folder / 'c.json').stat().st_size / report.leaves:.0f} bytes a leaf"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
