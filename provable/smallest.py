"""The smallest network whose deviation on a domain can still be certified.

    exact pruning ─► bisection on the multiply-adds that stay: compress ─► prove ─► audit; smaller if accepted

Starting point: neurons that never fire on the domain have left already, which costs nothing. Each size that is tried
is compressed, proved and audited like any other; only an accepted certificate counts, so the answer does not rest on
the bisection's assumption that smaller is harder. The share is searched on a grid of 1 / `STEPS`.

Not claimed: that no smaller network with a certificate exists.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from provable.answers import Answers, same
from provable.certify import Certified, certify
from provable.errors import BudgetError, InputError
from provable.exact.prune import compress_exact
from provable.journal import run_key
from provable.pipeline import compress
from provable.records import Compression, Cost
from verify.network.graph import Network
from verify.spec.box import Box

STEPS = 64


@dataclass(frozen=True)
class Probe:
    """One size that was tried.

    Attributes:
        share: multiply-adds kept of the exactly pruned network's; None for that network itself.
        cost: of the compact network.
        certified: what could be shown.
        seconds: wall clock for compressing, proving and auditing.
    """

    share: float | None
    cost: Cost
    certified: Certified
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """A row of search.json."""
        bound = self.certified.bound
        return {
            "share": self.share, **asdict(self.cost), "certified": None if bound is None else float(bound),
            "proved": _finite(self.certified.upper), "found": _finite(self.certified.lower),
            "leaves": self.certified.leaves, "reason": self.certified.reason, "seconds": self.seconds,
        }  # fmt: skip

    def as_answer(self) -> dict[str, Any]:
        """Everything about it, exactly."""
        bound = self.certified.bound
        exact = {**asdict(self.certified), "bound": None if bound is None else str(bound)}
        return {"share": self.share, "cost": asdict(self.cost), "certified": exact, "seconds": self.seconds}

    @staticmethod
    def of_answer(found: Mapping[str, Any]) -> "Probe":
        """From `as_answer`."""
        bound = found["certified"]["bound"]
        certified = Certified(**{**found["certified"], "bound": None if bound is None else Fraction(bound)})
        return Probe(found["share"], Cost(**found["cost"]), certified, found["seconds"])


@dataclass(frozen=True)
class Smallest:
    """The answer.

    Attributes:
        result: the smallest compression with a certificate.
        certified: what could be shown about it.
        probes: every size that was tried, in order.
        earlier: how many of them an interrupted search had tried.
    """

    result: Compression
    certified: Certified
    probes: tuple[Probe, ...]
    earlier: int = 0


def smallest_certified(
    model: Network,
    calibration: np.ndarray[Any, Any] | Tensor,
    boxes: Sequence[Box],
    *,
    epsilon: Fraction,
    timeout: float = 30.0,
    merge: bool = True,
    generator: int = 0,
    progress: Callable[[Probe], object] = lambda probe: None,
    journal: Path | None = None,
) -> Smallest | None:
    """Search for the smallest network with |original - compact| <= epsilon proved and audited on the domain.

    Args:
        model: the original.
        calibration: unlabelled inputs of the domain (samples, *input shape).
        boxes: the domain.
        epsilon: the deviation allowed, in the max norm over outputs.
        timeout: seconds for each proof.
        merge: as in `compress_exact`.
        generator: seed.
        progress: told of every size that was tried.
        journal: folder in which the search keeps what it found out, so that the same call after an interruption
            continues there and gives the identical result. The caller removes it when all is done.

    Returns:
        None when not even the exactly pruned network could be certified in time.

    Raises:
        InputError: epsilon is negative, or an argument does not fit the network.
    """
    if epsilon < 0:
        raise InputError(f"the deviation allowed is {float(epsilon):g}; it must not be negative")
    base = compress_exact(model, boxes, merge=merge)
    asked = {"epsilon": str(epsilon), "timeout": timeout, "merge": merge, "boxes": [repr(box) for box in boxes]}
    data = [np.asarray(calibration)]
    answers = Answers.at(journal, run_key(model.digest(), data, asked, np.random.default_rng(generator)))
    probes: list[Probe] = []
    found: list[tuple[Probe, Callable[[], Compression]]] = []

    def accepted(share: float | None, make: Callable[[], Compression]) -> bool:
        known = answers.known.get(str(share))
        made, probe = (None, Probe.of_answer(known)) if known else _probed(share, make, boxes, epsilon, timeout)
        if made is not None:
            answers.keep(str(share), {**probe.as_answer(), "digest": made.compact.digest()})
        probes.append(probe)
        progress(probe)
        if probe.certified.bound is not None:
            found.append((probe, make if made is None else lambda: made))
        return probe.certified.bound is not None

    if accepted(None, lambda: base):
        smaller = partial(_smaller, model, base, calibration, generator=generator, answers=answers)
        _bisect(lambda share: accepted(share, lambda: smaller(share)))
    if not found:
        return None
    probe, remake = min(found, key=lambda pair: pair[0].cost.flops)
    result = remake()
    same(result.compact, answers.known[str(probe.share)])
    return Smallest(result, probe.certified, tuple(probes), answers.earlier)


def _probed(
    share: float | None, make: Callable[[], Compression], boxes: Sequence[Box], epsilon: Fraction, timeout: float
) -> tuple[Compression, Probe]:
    began = time.perf_counter()
    result = make()
    certified = _certified(result, boxes, epsilon, timeout)
    return result, Probe(share, result.after, certified, time.perf_counter() - began)


def _bisect(accepted: Callable[[float], bool]) -> None:
    """Try shares k / STEPS, the interval between the largest refused and the smallest accepted halved each time."""
    refused, smallest = 0, STEPS
    while smallest - refused > 1:
        middle = (refused + smallest) // 2
        try:
            good = accepted(middle / STEPS)
        except BudgetError:  # no network is that small
            good = False
        refused, smallest = (refused, middle) if good else (middle, smallest)


def _smaller(
    model: Network,
    base: Compression,
    calibration: np.ndarray[Any, Any] | Tensor,
    share: float,
    generator: int,
    answers: Answers,
) -> Compression:
    """The exactly pruned network compressed further, told as a compression of the original."""
    further = compress(
        base.compact, calibration, keep={"flops": share}, scope="inner", generator=generator,
        journal=answers.candidate(),
    )  # fmt: skip
    return replace(
        further,
        original=model,
        channels={"version": 1, "values": composed(base.channels["values"], further.channels["values"])},
        before=base.before,
        settings={**further.settings, "before it": dict(base.settings)},
        notes=(*further.notes, *(f"exact pruning before it: {r.note}" for r in base.groups if r.note)),
    )


def composed(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Where the positions of a network come from that was cut twice."""
    result = {name: dict(entry) for name, entry in first.items()}
    for name, entry in second.items():
        if name not in first:
            result[name] = dict(entry)
        elif first[name]["axis"] != entry["axis"]:
            raise InputError(f"value {name!r} was cut along two axes")
        else:
            result[name]["kept"] = [first[name]["kept"][i] for i in entry["kept"]]
    return result


def _certified(result: Compression, boxes: Sequence[Box], epsilon: Fraction, timeout: float) -> Certified:
    with tempfile.TemporaryDirectory() as temporary:
        return certify(result, result.save(Path(temporary) / "probe"), boxes, epsilon=epsilon, timeout=timeout)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
