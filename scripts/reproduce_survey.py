"""The survey's comparison groups on its benchmark problems: answer and time per algorithm, our own engine beside them.

    python scripts/reproduce_survey.py [--quick] [--limit SECONDS] [--data FOLDER]

Groups and problems as in the survey's scripts: small_nnet and small_nnet_id, MNIST, ACAS Xu property 10 (and its small
uniform box), where the networks of `--data` replace those that are not public: ACAS Xu 1_1 for 4_5, and for MNIST1-4
small networks that are fitted here (random hidden layers, least squares on MNIST). Every call stops at the limit, in
wall time. "holds" and "violated" of two algorithms on one problem are checked against each other:
a contradiction ends with exit code 1.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from verify import read_onnx
from verify.survey import (
    ALGORITHMS,
    Complement,
    HalfSpace,
    Hyperrectangle,
    Layer,
    Problem,
    ReluNetwork,
    Result,
    Status,
    algorithm,
    from_graph,
)
from verify.survey.formal_engine import FACTS, formal_engine

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
IMAGE = 22  # the survey's image #23, counted from 1
ENGINE = FACTS.name
Make = Callable[[], Problem]


@dataclass(frozen=True)
class Benchmark:
    """A named problem of a group, and the algorithms that the survey compares on it."""

    group: str
    name: str
    algorithms: tuple[str, ...]
    problem: Problem


def small(last_sign: float, last_relu: bool) -> ReluNetwork:
    """small_nnet (weights inferred) and small_nnet_id."""
    first, second = ([[1], [1]], [1.5, 1.5]), ([[2, 2], [2, 2]], [2.5, 2.5])
    return ReluNetwork.of([first, second, ([[3 * last_sign, 3 * last_sign]], [3.5])], last_relu=last_relu)


def mnist(data: Path) -> tuple[ReluNetwork, np.ndarray, int] | None:
    """A 784-20-20-10 network fitted by least squares behind random hidden layers; the image in 0-255; its label."""
    path = data / "mnist" / "mnist.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    images = next(v for k, v in arrays.items() if v.ndim >= 2 and len(v) == 60000).reshape(60000, -1)[:5000] / 255.0
    labels = next(v for k, v in arrays.items() if v.ndim == 1 and len(v) == 60000)[:5000].astype(int)
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(20, 784)) / 28 / 255, np.zeros(20)), (rng.normal(size=(20, 20)) / 4, np.zeros(20))]
    hidden = images * 255
    for weight, bias in layers:
        hidden = np.maximum(hidden @ weight.T + bias, 0)
    design = np.hstack([hidden, np.ones((len(hidden), 1))])
    fitted = np.linalg.lstsq(design, 10 * np.eye(10)[labels], rcond=None)[0].T
    network = ReluNetwork.of([*layers, (fitted[:, :-1], fitted[:, -1])])
    image = images[IMAGE] * 255
    return network, image, int(np.argmax(network.evaluate(image)))


def acas(data: Path) -> ReluNetwork | None:
    """ACAS Xu 1_1."""
    path = data / "acasxu" / "ACASXU_run2a_1_1_batch_2000.onnx"
    return from_graph(read_onnx(path)) if path.exists() else None


LOW = np.array([0.21466922, 0.11140846, -0.4999999, 0.3920202, 0.4])
HIGH = np.array([0.58819589, 0.4999999, -0.49840835, 0.66474747, 0.4])
UNIFORM = Hyperrectangle.around([0.40143256, 0.30570418, -0.49920412, 0.52838383, 0.4], 0.0015)
PROPERTY_10 = HalfSpace(np.array([1.0, 0, 0, 0, -1]), 0.0)
GROUPS = {
    "1 reachability": ("ExactReach", "Ai2", "MaxSens"),
    "2 primal optimisation": ("NSVerify", "MIPVerify", "ILP"),
    "3 dual optimisation": ("Duality", "ConvDual", "Certify"),
    "4 search + reachability, radius": ("FastLin", "FastLip", "MIPVerify", "ILP"),
    "5 search, one output": ("ReluVal", "Neurify", "DLV", "Sherlock", "BaB"),
    "6 search + optimisation": ("Planet", "Reluplex", "ReluVal"),
}


def small_problems() -> Iterator[tuple[str, Problem]]:
    """Problems of small_nnet and small_nnet_id: (group number or "", name), for the groups that take their sets."""
    box = Hyperrectangle([-0.9], [0.9])
    identity, rectified = small(-1, False), small(1, True)
    for name, network, low, high in (
        ("id holds", identity, -70.0, -23.0), ("id violated", identity, -100.0, -45.0),
        ("holds", rectified, 30.0, 80.0),
    ):  # fmt: skip
        yield f"small_nnet {name}: y in [{low:g}, {high:g}]", Problem(network, box, Hyperrectangle([low], [high]))
    for words, network, sign, offset in (
        ("id: y <= -10", identity, 1.0, -10.0),
        ("id: -y <= 20", identity, -1.0, 20.0),
        ("y <= 100", rectified, 1.0, 100.0),
    ):  # fmt: skip
        yield f"small_nnet {words}", Problem(network, box, HalfSpace([sign], offset))
    readme = Problem(rectified, Hyperrectangle([-1.0], [1.0]), Hyperrectangle([-1.0], [70.0]))
    yield "small_nnet x in [-1, 1]: y in [-1, 70]", readme
    one_hidden = ReluNetwork.of([([[1], [1]], [1.5, 1.5]), ([[2, 2]], [2.5])])
    yield "one hidden layer: y <= 13", Problem(one_hidden, box, HalfSpace([1.0], 13.0))


def large_problems(data: Path, quick: bool) -> Iterator[tuple[str, Problem]]:
    """MNIST and ACAS Xu, where the data is there."""
    found = mnist(data)
    if found is not None:
        network, image, label = found
        box, y = Hyperrectangle.around(image, 1.0), network.evaluate(image)
        yield "MNIST 20x2: logits +- 10", Problem(network, box, Hyperrectangle.around(y, 10.0))
        runner_up = int(np.argsort(y)[-2])
        normal = np.eye(10)[runner_up] - np.eye(10)[label]
        yield "MNIST 20x2: label keeps its lead", Problem(network, box, HalfSpace(normal, 0.0))
    xu = acas(data)
    if xu is not None:
        yield "ACAS Xu 1_1: property 10, uniform box", Problem(xu, UNIFORM, PROPERTY_10)
        if not quick:
            yield "ACAS Xu 1_1: property 10", Problem(xu, Hyperrectangle(LOW, HIGH), PROPERTY_10)
            outside = Complement(HalfSpace(-PROPERTY_10.normal, 0.0))
            yield "ACAS Xu 1_1: property 10 as complement", Problem(xu, UNIFORM, outside)
            last = xu.layers[-1]
            first = ReluNetwork((*xu.layers[:-1], Layer(last.weight[:1], last.bias[:1])))
            yield "ACAS Xu 1_1, first output in [-0.1, 3]", Problem(first, UNIFORM, Hyperrectangle([-0.1], [3.0]))


def benchmarks(data: Path, quick: bool) -> list[Benchmark]:
    """Every group with every problem that at least one of its algorithms takes."""
    problems = [*small_problems(), *large_problems(data, quick)]
    found = []
    for group, names in GROUPS.items():
        for name, problem in problems:
            mine = [n for n in names if ALGORITHMS[n].facts.refusal(problem) is None]
            mine += [ENGINE] if FACTS.refusal(problem) is None else []
            if len(mine) > (ENGINE in mine):
                found.append(Benchmark(group, name, tuple(mine), problem))
    return found


def main() -> int:
    """Run everything, print one table per group."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer problems, 2 seconds per call")
    parser.add_argument("--limit", type=float, help="seconds per call (12; with --quick 2)")
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    limit = options.limit or (2.0 if options.quick else 12.0)
    console = Console(width=110)
    import_module("cvxpy")  # seconds that would be counted as Certify's
    if not (options.data / "acasxu").exists():
        console.print(f"no data in {options.data}: only the small networks are run")
    todo = benchmarks(options.data, options.quick)
    known: dict[tuple[str, str], tuple[Result, float]] = {}
    columns = (SpinnerColumn(), TextColumn("{task.completed}/{task.total} {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=sum(len(b.algorithms) for b in todo))
        for bench in todo:
            for name in bench.algorithms:
                progress.update(task, description=f"{name} on {bench.name}")
                if (name, bench.name) not in known:
                    known[name, bench.name] = timed(name, bench.problem, limit)
                progress.advance(task)
    for group in GROUPS:
        console.print(table(group, [b for b in todo if b.group == group], known))
    return report(console, todo, known)


def timed(name: str, problem: Problem, limit: float) -> tuple[Result, float]:
    """An answer and its wall seconds."""
    started = time.monotonic()
    result = formal_engine(problem, limit) if name == ENGINE else algorithm(name).solve(problem, limit)
    return result, time.monotonic() - started


def table(group: str, found: list[Benchmark], known: dict[tuple[str, str], tuple[Result, float]]) -> Table:
    """One row per problem and algorithm, our own engine the last one of each problem."""
    shown = Table("problem", "algorithm", "answer", "wall s", "radius", title=f"group {group}")
    for bench in found:
        for name in bench.algorithms:
            first, last = name == bench.algorithms[0], name == bench.algorithms[-1]
            shown.add_row(bench.name if first else "", name, *cells(*known[name, bench.name]), end_section=last)
    return shown


def cells(result: Result, seconds: float) -> tuple[str, str, str]:
    """Status, seconds, radius."""
    late = " (time)" if result.words.startswith(("no answer within", "the solver stopped")) else ""
    radius = "" if result.radius is None else f"{result.radius:.3g} {result.radius_kind}"
    return f"{result.status.value}{late}", f"{seconds:.2f}", radius


def report(console: Console, todo: list[Benchmark], known: dict[tuple[str, str], tuple[Result, float]]) -> int:
    """Whether two algorithms contradict each other on a problem."""
    wrong = []
    for problem in dict.fromkeys(b.name for b in todo):
        statuses = {n: r.status for (n, p), (r, _) in known.items() if p == problem}
        if {Status.HOLDS, Status.VIOLATED} <= set(statuses.values()):
            wrong.append(f"{problem}: {statuses}")
    console.print("\n".join(wrong) or "no two answers contradict each other")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
