"""What an audit costs: 1,000 leaves of a pair with 300 ReLUs, and auditing time over proving time.

The pair has six hidden layers of fifty ReLUs, as the networks of ACAS Xu; a tenth of the neurons is dropped and the
other weights move by a thousandth. Its tree has a thousand leaves. For the ratio the prover is given some seconds on
the same pair and domain, and its own certificate is written and audited. Processor seconds of one thread. The ratio on
the networks of ACAS Xu themselves is printed by scripts/reproduce_acasxu.py.

    OMP_NUM_THREADS=1 python scripts/bench_audit.py
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
from verify.network.write_onnx import write_onnx
from verify.spec.box import Box
from verify.spec.deviation import Leaf, Split, Tree


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
    widths = [high - low for low, high in zip(box.lower, box.upper, strict=True)]
    i = widths.index(max(widths))
    at = Fraction(float((box.lower[i] + box.upper[i]) / 2))
    low = Box(box.lower, (*box.upper[:i], at, *box.upper[i + 1 :]))
    high = Box((*box.lower[:i], at, *box.lower[i + 1 :]), box.upper)
    return Split(i, at, grown(low, leaves - leaves // 2), grown(high, leaves // 2))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leaves", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=50)
    parser.add_argument("--radius", default="1/50", help="half the width of the box")
    parser.add_argument("--prove", type=float, default=20.0, help="seconds for the prover; 0: no ratio")
    options = parser.parse_args()
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
