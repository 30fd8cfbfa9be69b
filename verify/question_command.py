"""`verify question KIND`: decide a claim about every input of a domain and say what was established."""

import argparse
import math
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

from numpy.random import default_rng

from verify.cli import PROVED, REFUTED, UNKNOWN
from verify.deviation_command import chosen_workers, decimal_up, positive_decimal, read_channels, shown_point
from verify.errors import MismatchError, SpecificationError
from verify.network.graph import Network
from verify.network.load import load_network
from verify.questions.arg_max import same_arg_max
from verify.questions.per_output import per_output
from verify.questions.relative import relative
from verify.questions.sample import certify_boxes
from verify.questions.search import Answer, Question, answer
from verify.questions.unsafe import prove_property
from verify.spec.box import Box
from verify.spec.deviation import Verdict
from verify.spec.vnnlib import read_vnnlib

CODES = {Verdict.PROVED: PROVED, Verdict.REFUTED: REFUTED, Verdict.UNKNOWN: UNKNOWN}
RANGE_SHARE = 0.3  # of the time goes into the range of the outputs
SHOWN = 12  # outputs whose range is printed


def run_question(options: argparse.Namespace) -> int:
    """Answer one question about network files; returns the exit code."""
    if not options.timeout > 0:
        raise SpecificationError(f"--timeout {options.timeout} is not a positive number of seconds")
    kinds = {
        "arg-max": _arg_max, "per-output": _per_output, "relative": _relative, "property": _property, "sample": _sample,
        "complete": _complete,
    }  # fmt: skip
    return kinds[options.kind](options)


def _arg_max(options: argparse.Namespace) -> int:
    original, compact, boxes, channels = _pair(options)
    margin = positive_decimal(options.margin, "--margin")
    question = same_arg_max(original, compact, margin, channels)
    claim = f"wherever one output of the original leads all others by more than {options.margin}, it is the compact "
    return _say(_answer(options, question, boxes), claim + "network's single largest output too")


def _per_output(options: argparse.Namespace) -> int:
    original, compact, boxes, channels = _pair(options)
    limits = [positive_decimal(text.strip(), "--epsilon") for text in options.epsilon.split(",")]
    question = per_output(original, compact, limits, channels)
    return _say(_answer(options, question, boxes), f"|original - compact| <= {options.epsilon}, output by output")


def _relative(options: argparse.Namespace) -> int:
    original, compact, boxes, channels = _pair(options)
    share = positive_decimal(options.share, "--share")
    seconds = RANGE_SHARE * options.timeout
    question, ranges = relative(original, compact, share, boxes, channels, seconds=seconds)
    for i, (reached, limit) in enumerate(zip(ranges.inner(), question.limits, strict=True)):
        if i < SHOWN:
            print(f"output {i}: range of at least {float(reached):.6g}, so the limit is {float(limit):.6g}")
    claim = f"|original - compact| <= {options.share} times the range of the original's output, output by output"
    return _say(_answer(options, question, boxes, options.timeout - seconds), claim)


def _property(options: argparse.Namespace) -> int:
    network, wanted = load_network(options.compact), read_vnnlib(options.property)
    found = prove_property(network, wanted, seconds=options.timeout, generator=default_rng(options.seed))
    return _say(found, f"no input of {options.property} is unsafe for {options.compact}")


def _complete(options: argparse.Namespace) -> int:
    from verify.complete.deviation import complete_deviation

    original, compact, boxes, _ = _pair(options)
    epsilon = None if options.epsilon is None else positive_decimal(options.epsilon, "--epsilon")
    found = complete_deviation(
        original, compact, boxes, method=options.method, epsilon=epsilon, seconds=options.timeout
    )
    proved = "not bounded in time" if found.upper == math.inf else f"at most {decimal_up(Fraction(found.upper))}"
    if found.upper == found.lower:
        proved = "exactly that"
    asked = "" if epsilon is None else f" (asked: at most {options.epsilon})"
    print(f"{found.verdict.value.upper()}{asked}: a deviation of {float(found.lower):.6g} is attained; it is {proved}.")
    if found.claimed < found.upper:
        print(f"The solver claims at most {found.claimed:.6g}, true up to its tolerance of 1e-6: no proof.")
    print(f"{found.seconds:.2f} s, rational arithmetic; no auditor re-does this proof.")
    print(f"Attained at {shown_point(found.witness)}.")
    return CODES[found.verdict]


def _sample(options: argparse.Namespace) -> int:
    from verify.statistical_command import read_inputs

    original, compact, channels = _networks(options)
    wanted = positive_decimal(options.at_least or "1", "--at-least")
    if wanted > 1:
        raise SpecificationError(f"--at-least {options.at_least} is more than every box")
    with chosen_workers(options) as workers:
        found = certify_boxes(
            original, compact, read_inputs(options.data, options.key), options.radius, options.epsilon, channels,
            minimum=options.minimum, maximum=options.maximum, confidence=options.confidence, seconds=options.timeout,
            workers=workers,
        )  # fmt: skip
    total = len(found.verdicts)
    print(
        f"{found.certified} of {total} boxes certified ({found.certified / total:.2%}), {found.refuted} refuted, "
        f"{total - found.certified - found.refuted} undecided: |original - compact| <= {options.epsilon} on center ± "
        f"{options.radius}."
    )
    print(
        f"If the centers are independent draws, a fresh box is certified with probability >= {found.rate_lower:.6g} "
        f"(confidence {options.confidence})."
    )
    if found.certified >= wanted * total:
        return PROVED
    return REFUTED if total - found.refuted < wanted * total else UNKNOWN


def _networks(options: argparse.Namespace) -> tuple[Network, Network, Any]:
    channels = None if options.channels is None else read_channels(options.channels)
    return load_network(options.original), load_network(options.compact), channels


def _pair(options: argparse.Namespace) -> tuple[Network, Network, tuple[Box, ...], Any]:
    original, compact, channels = _networks(options)
    return original, compact, _boxes(options.domain), channels


def _boxes(domain: Path) -> tuple[Box, ...]:
    boxes = read_vnnlib(domain).boxes
    if not boxes:
        raise MismatchError(f"{domain}: no box")
    return boxes


def _answer(
    options: argparse.Namespace, question: Question, boxes: tuple[Box, ...], seconds: float | None = None
) -> Answer:
    return answer(question, boxes, seconds=seconds or options.timeout, generator=default_rng(options.seed))


def _say(found: Answer, claim: str) -> int:
    print(f"{found.verdict.value.upper()}: for every input of the domain, {claim}, in real arithmetic.")
    print(f"{found.leaves:,} sub-boxes, {found.seconds:.2f} s, rule {found.rule}; no auditor re-does this proof.")
    if found.verdict is Verdict.REFUTED and found.witness is not None:
        print(f"The claim fails, replayed with rigorous rounding, at {shown_point(found.witness)}.")
    if found.verdict is Verdict.UNKNOWN:
        rest = decimal_up(Fraction(1) - Fraction(found.share))
        print(f"Not decided: {found.reason}; proved on all but {rest} of the domain's volume.", file=sys.stderr)
    return CODES[found.verdict]
