"""Where a bound is loose, layer by layer: what is proved of every argument of a ReLU, what is seen, what it costs.

    python scripts/bench_layers.py [--instances mnist acas conv] [--data FOLDER]

The backward bound of the whole box, slopes chosen without search, for the output and sign that are worst. It is a
linear function of the input; at the input x* that maximises it, telescoping over the layers gives exactly

    bound = deviation at x*  +  sum over layers of (planes of the layer - the layer), at the values that x* has there

so the last column says which layer's planes the bound pays for. "wide" compares widths: mean proved width of the
difference (and of the original's value) over the mean width seen on random points, corners and x*; sampling sees too
little, the more so the more inputs there are. "exact": the difference is proved to be 0, up to rounding.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bench_verification as bench
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from verify import Box, Network, read_onnx, read_vnnlib
from verify.formal.backward.bound import Analysis, Effort, both_signs
from verify.formal.backward.enclosure import Interval
from verify.formal.backward.planes import Line, Relaxation
from verify.formal.backward.substitution import Coefficients
from verify.formal.backward.tape import Rectifier, Tape, record_pair
from verify.formal.lift import align
from verify.formal.pair import Kept
from verify.formal.program import EVERY_SYMBOL
from verify.network.evaluate import evaluate_values

POINTS = 1000  # of either kind
ROUNDING = 1e-13  # of evaluating a network in float64


@dataclass(frozen=True)
class Layer:
    """One ReLU of a pair.

    Attributes:
        neurons: of the original; open, open_pair: how many of them, and of the pairs, are not settled.
        wide, wide_original: proved width over width seen, of the difference and of the original's argument.
        gap: what its planes add to the bound at x*.
    """

    name: str
    neurons: int
    open: int
    open_pair: int
    wide: float
    wide_original: float
    gap: float


@dataclass(frozen=True)
class Profile:
    """A bound and what it is made of."""

    bound: float
    at_maximum: float
    layers: tuple[Layer, ...]


def profile(original: Network, twin: bench.Twin, box: Box) -> Profile:
    """The worst output's bound, taken apart."""
    lift = align(original, twin.network, twin.channels)
    if lift is None:
        raise ValueError("the networks do not correspond layer by layer")
    tape = record_pair(original, twin.network, lift)
    low, high = (torch.from_numpy(v)[None] for v in box.outward())
    with torch.no_grad():
        analysis = Analysis(tape, low, high, Effort(0, 0, EVERY_SYMBOL, 0.0, float("inf"))).run()
        start = {tape.output: Coefficients(d=both_signs(tape.entries[tape.output].sizes[1]))}
        seen: dict[int, Coefficients] = {}
        function = analysis.function(start, analysis.relaxed, analysis.weights, seen)
        upper = function.largest(low, high)[0]
        row = int(upper.argmax())
        corner = torch.where(function.inputs[0, row] > 0.0, high[0], low[0])
        values = Values(tape, original, twin.network, box, corner)
        layers = tuple(_layer(values, analysis, i, seen[i], row) for i in sorted(analysis.hinges) if i in seen)
    sign = 1.0 if row < len(upper) // 2 else -1.0
    at_maximum = sign * float(values.difference(tape.output)[0, row % (len(upper) // 2)])
    return Profile(float(upper[row]), at_maximum, layers)


class Values:
    """What entries of a tape are at x* (first), at random points and at corners; elements in stored order."""

    def __init__(self, tape: Tape, original: Network, compact: Network, box: Box, first: Tensor) -> None:
        rng = np.random.default_rng(0)
        low, high = box.outward()
        inner = low + rng.random((POINTS, box.dimension)) * (high - low)
        corners = np.where(rng.random((POINTS, box.dimension)) < 0.5, low, high)
        points = np.concatenate([first.numpy()[None], inner, corners])
        names = {index: name for name, index in tape.names.items()}
        wanted = {i: names[i] for entry in tape.entries if isinstance(entry, Rectifier) for i in entry.inputs}
        wanted |= {i: names[i] for i, e in enumerate(tape.entries) if isinstance(e, Rectifier) or i == tape.output}
        self.tape = tape
        self.original, self.compact = (
            evaluate_values(network, points.reshape(-1, *network.input_shape), wanted.values())
            for network in (original, compact)
        )
        self.names = wanted

    def z(self, index: int) -> Tensor:
        flat = torch.from_numpy(self.original[self.names[index]].reshape(2 * POINTS + 1, -1).copy())
        order = self._kept(index).order
        return flat if order is None else flat[:, order]

    def y(self, index: int) -> Tensor:
        return torch.from_numpy(self.compact[self.names[index]].reshape(2 * POINTS + 1, -1).copy())

    def difference(self, index: int) -> Tensor:
        return self._kept(index).of(self.z(index)) - self.y(index)

    def _kept(self, index: int) -> Kept:
        kept = self.tape.entries[index].kept
        assert kept is not None
        return kept


def _layer(values: Values, analysis: Analysis, index: int, c: Coefficients, row: int) -> Layer:
    source = values.tape.entries[index].inputs[0]
    known, relaxation = analysis.known[source], analysis.relaxed[index]
    open_z = ~((known.z.lower >= 0.0) | (known.z.upper <= 0.0))
    kept = values.tape.entries[index].kept
    assert kept is not None
    open_pair = kept.of(open_z) | ~((known.y.lower >= 0.0) | (known.y.upper <= 0.0))
    scale = float(values.z(source).abs().max())
    return Layer(
        values.names[index],
        open_z.shape[1],
        int(open_z.sum()),
        int(open_pair.sum()),
        _wide(known.d, values.difference(source), scale),
        _wide(known.z, values.z(source), scale),
        _gap(values, index, source, c, relaxation, row),
    )


def _wide(proved: Interval, seen: Tensor, scale: float) -> float:
    """Mean width proved over mean width seen; 0 where the proved one is that of rounding."""
    found, width = (
        float((high - low).mean()) for low, high in ((proved.lower, proved.upper), torch.aminmax(seen, dim=0))
    )
    if found <= ROUNDING * scale:
        return 0.0
    return found / width if width > ROUNDING * scale else float("inf")


def _gap(values: Values, index: int, source: int, c: Coefficients, relaxation: Relaxation, row: int) -> float:
    """Planes minus function at x*, weighted as the bound weights them."""
    total = 0.0
    lines = ((c.z, relaxation.z, values.z), (c.y, relaxation.y, values.y))
    for coefficients, pair, of in lines:
        if coefficients is not None and pair is not None:
            x, out = of(source)[0], of(index)[0]
            total += _weighed(_row(coefficients, row), *(_line(line, x, row) - out for line in pair))
    if c.d is not None and relaxation.d is not None and relaxation.kept is not None:
        z, d = relaxation.kept.of(values.z(source))[0], values.difference(source)[0]
        out = values.difference(index)[0]
        planes = (_row(p.a, row) * z + _row(p.b, row) * d + _row(p.offset, row) - out for p in relaxation.d)
        total += _weighed(_row(c.d, row), *planes)
    return total


def _line(line: Line, x: Tensor, row: int) -> Tensor:
    return _row(line.slope, row) * x + _row(line.offset, row)


def _row(rows: Tensor, row: int) -> Tensor:
    """One row of ``(1, rows or 1, n)``."""
    return rows[0, row if rows.shape[1] > 1 else 0]


def _weighed(coefficients: Tensor, below: Tensor, above: Tensor) -> float:
    return float((coefficients * torch.where(coefficients > 0.0, above, below)).sum())


def twins(network: Network, box: Box, keep: float) -> Iterator[bench.Twin]:
    """The twins of the other tables."""
    yield bench.float16(network)
    yield bench.removed(network, box, keep)
    yield bench.inactive_first(network, box, keep)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=bench.DATA)
    parser.add_argument("--instances", nargs="+", default=list(bench.INSTANCES), choices=list(bench.INSTANCES))
    parser.add_argument("--keep", type=float, default=0.8)
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"no folder {options.data}; give it with --data")
    torch.set_num_threads(1)
    table = Table(box=None, pad_edge=False)
    for title in ("pair", "layer", "neurons", "open", "open pairs", "wide", "original wide", "gap", "of the bound"):
        table.add_column(title, justify="left" if title in ("pair", "layer") else "right")
    pairs = [pair for name in options.instances for pair in bench.INSTANCES[name]]
    for model, domain in track(pairs, "taking bounds apart"):
        network, box = read_onnx(options.data / model), read_vnnlib(options.data / domain).boxes[0]
        for twin in twins(network, box, options.keep):
            _rows(table, f"{Path(model).stem} {Path(domain).stem}"[:36] + f", {twin.name}", profile(network, twin, box))
    Console(width=170).print(table)


def _rows(table: Table, pair: str, found: Profile) -> None:
    for layer in found.layers:
        table.add_row(
            pair, layer.name, f"{layer.neurons:,}", f"{layer.open:,}", f"{layer.open_pair:,}",
            f"{layer.wide:.3g}" if layer.wide else "exact",
            f"{layer.wide_original:.3g}", f"{layer.gap:.3g}", f"{layer.gap / found.bound:.0%}",
        )  # fmt: skip
        pair = ""
    for name, part in (("deviation at x*", found.at_maximum), ("bound", found.bound)):
        table.add_row("", name, *[""] * 5, f"{part:.3g}", f"{part / found.bound:.0%}")


if __name__ == "__main__":
    main()
