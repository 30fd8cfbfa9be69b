"""Assertions about an original and a compact network, for test suites.

    assert_deviation       for every input of a domain: |original - compact| <= epsilon   proved, or it fails
    assert_agreement       same arg max on at least a share of inputs, with confidence   statistical, fresh data
    assert_same_argmax     same arg max on every given input                             checked on these inputs only
    assert_networks_equal  same graph, same bits

A failure is an AssertionError that says what was found. "Not decided in time" fails too: a test that passes has
established its claim. Networks come as `Network`, as paths, or as torch modules with `example`.
"""

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from verify.empirical.measure import compare
from verify.errors import SpecificationError
from verify.network.graph import Array, Network, Node
from verify.spec.box import Box
from verify.spec.vnnlib import read_vnnlib
from verify.statistical.certificate import StatisticalCertificate, certify_sample
from verify.statistical.confidence import Level, exact
from verify.testing.subjects import as_network

if TYPE_CHECKING:
    import torch

    from verify.formal.deviation import DeviationResult
    from verify.testing.subjects import Subject

Domain = Box | Sequence[Box] | Path | str
SHOWN = 8


def assert_deviation(
    original: "Subject",
    compact: "Subject",
    domain: Domain,
    epsilon: str | float | Fraction,
    *,
    channels: Mapping[str, Any] | None = None,
    timeout: float = 60.0,
    example: "torch.Tensor | None" = None,
    generator: np.random.Generator | None = None,
) -> "DeviationResult":
    """For every input of `domain`, no output deviates by more than `epsilon`, in real arithmetic. Proved.

    Args:
        domain: a box, several, or the path of a VNN-LIB file.
        epsilon: a decimal string is taken exactly, a float by its binary value.
        channels: content of channels.json, if the compact network has fewer channels.
        timeout: seconds for the proof.
        example: one input with batch axis, for torch modules.

    Returns:
        The proof found.

    Raises:
        AssertionError: refuted, with the input; or not decided in time, with the bounds reached.
        InputError: the networks or the domain do not fit or cannot be read.
    """
    __tracebackhide__ = True
    from verify.formal.deviation import verify_deviation
    from verify.spec.deviation import Verdict

    result = verify_deviation(
        as_network(original, example), as_network(compact, example), _boxes(domain),
        epsilon=epsilon, channels=channels, timeout=timeout, generator=generator,
    )  # fmt: skip
    if result.verdict is Verdict.REFUTED:
        point = None if result.witness is None else [float(v) for v in result.witness]
        raise AssertionError(
            f"REFUTED: output {result.output} deviates by {result.lower:.9g} > {epsilon} at input {_short(point)}"
        )
    if result.verdict is not Verdict.PROVED:
        raise AssertionError(
            f"UNKNOWN: a deviation of at most {epsilon} was not decided in {timeout} s; proved: at most "
            f"{result.upper:.6g}, attained: {result.lower:.6g}. Allow more time, a larger epsilon or a smaller domain"
        )
    return result


def assert_agreement(
    original: "Subject",
    compact: "Subject",
    data: Array,
    at_least: Level,
    confidence: Level = "0.99",
    *,
    calibration_rows: Collection[str] = (),
    margin: str | float = "1e-9",
    example: "torch.Tensor | None" = None,
) -> StatisticalCertificate:
    """With `confidence`, the arg max agrees on a share of at least `at_least` of the inputs that `data` was drawn from.

    Args:
        data: ``(n, *input_shape)`` independent fresh inputs, used for nothing else.
        at_least: share in (0, 1).
        calibration_rows: hashes of the calibration inputs (`verify.statistical.row_hashes`); an overlap is refused.

    Returns:
        The statistical certificate.

    Raises:
        AssertionError: the data do not support the claim; says how many disagree and what they do support.
        InputError: bad data, or data used for calibration.
    """
    __tracebackhide__ = True
    share = exact(at_least, "at_least")
    certificate = certify_sample(
        as_network(original, example), as_network(compact, example), data,
        calibration_rows=calibration_rows, metrics=["argmax"], confidence=confidence, margin=margin,
    )  # fmt: skip
    (claim,) = certificate.claims
    if 1 - claim.bound < share:
        raise AssertionError(
            f"the arg max differs (or is too close to call) on {claim.count} of {claim.samples} inputs; with "
            f"confidence {confidence} this shows agreement on at least {float(1 - claim.bound):.6g} of inputs, "
            f"not {at_least}"
        )
    return certificate


def assert_same_argmax(
    original: "Subject", compact: "Subject", data: Array, *, example: "torch.Tensor | None" = None
) -> None:
    """The arg max is the same on every row of `data` ``(n, *input_shape)``, in float64; nothing about other inputs.

    Raises:
        AssertionError: names the rows that differ and what both networks answer there.
        InputError: bad data, or networks that do not fit together.
    """
    __tracebackhide__ = True
    both = compare(as_network(original, example), as_network(compact, example), data)
    different = np.flatnonzero(~both.agrees())
    if len(different):
        cases = [f"row {i}: {both.original[i].argmax()} became {both.compact[i].argmax()}" for i in different[:SHOWN]]
        more = "; ..." if len(different) > SHOWN else ""
        raise AssertionError(
            f"the arg max differs on {len(different)} of {len(both.original)} inputs ({'; '.join(cases)}{more})"
        )


def assert_networks_equal(first: "Subject", second: "Subject", *, example: "torch.Tensor | None" = None) -> None:
    """Both networks have the same nodes, attributes and parameter bits (hence the same digest).

    Raises:
        AssertionError: names the first difference.
    """
    __tracebackhide__ = True
    a, b = as_network(first, example), as_network(second, example)
    if a.digest() != b.digest():
        raise AssertionError(f"the networks differ: {_first_difference(a, b)}")


def _boxes(domain: Domain) -> tuple[Box, ...]:
    if isinstance(domain, Box):
        return (domain,)
    boxes = tuple(read_vnnlib(Path(domain)).boxes if isinstance(domain, str | Path) else domain)
    if not boxes:
        raise SpecificationError("the domain holds no box: nothing would be claimed")
    return boxes


def _short(values: Sequence[float] | None) -> str:
    if values is None:
        return "(not recorded)"
    text = ", ".join(f"{v:.9g}" for v in values[: 2 * SHOWN])
    return f"[{text}{', ...' if len(values) > 2 * SHOWN else ''}]"


def _first_difference(a: Network, b: Network) -> str:
    for what, one, two in (
        ("input", (a.input, a.input_shape), (b.input, b.input_shape)),
        ("output", a.output, b.output),
        ("number of nodes", len(a.nodes), len(b.nodes)),
    ):
        if one != two:
            return f"{what} is {one} and {two}"
    for first, second in zip(a.nodes, b.nodes, strict=True):
        if _plain(first) != _plain(second):
            return f"node {_plain(first)} and {_plain(second)}"
    return _parameter_difference(a, b)


def _plain(node: Node) -> tuple[Any, ...]:
    return node.name, node.op, node.inputs, node.shape, dict(node.parameters), dict(node.attributes)


def _parameter_difference(a: Network, b: Network) -> str:
    if set(a.parameters) != set(b.parameters):
        return f"parameters {sorted(set(a.parameters) ^ set(b.parameters))[:SHOWN]} are in one of them only"
    for key, one in a.parameters.items():
        two = b.parameters[key]
        if one.dtype != two.dtype or one.shape != two.shape:
            return f"parameter {key!r} is {one.dtype}{one.shape} and {two.dtype}{two.shape}"
        if one.tobytes() != two.tobytes():
            places = np.argwhere(one != two)
            where = f"first at {tuple(map(int, places[0]))}" if len(places) else "in the sign of zeros"
            return f"parameter {key!r} differs in {len(places)} of {one.size} elements, {where}"
    return "the order of keys"
