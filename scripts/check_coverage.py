"""Exact coverage of the Clopper-Pearson bound at its hardest rates, for every sample size: never below nominal.

    python scripts/check_coverage.py [--samples 500] [--confidences 0.95 0.999]

The bound U(k) on a rate covers the rate p if p <= U(K), K ~ Bin(n, p). Coverage falls in p between two values of U and
jumps up behind each, so its infimum is reached just above some U(k), where it is 1 - P(Bin(n, p) <= k). Tails are
rounded up in integer arithmetic, so the printed coverage is a lower bound. Theory: theory_notes/clopper_pearson.md.
"""

import argparse
from fractions import Fraction

from rich.console import Console
from rich.progress import track
from rich.table import Table

from verify.statistical.binomial import binomial_tail_upper
from verify.statistical.clopper_pearson import rate_upper

JUST_ABOVE = Fraction(1, 2**70)


def smallest_coverage(samples: int, confidence: str) -> Fraction:
    """Lower bound of the coverage of the bound of `samples` draws, over all rates."""
    rates = [Fraction(rate_upper(k, samples, confidence)) + JUST_ABOVE for k in range(samples)]
    return min(1 - binomial_tail_upper(samples, k, rate) for k, rate in enumerate(rates) if rate < 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=500, help="every size up to this one (500)")
    parser.add_argument("--confidences", nargs="+", default=["0.95", "0.999"])
    options = parser.parse_args()
    console, failed = Console(), False
    table = Table("confidence", "smallest coverage", "at a sample of", "sizes", "rates", box=None, pad_edge=False)
    for confidence in options.confidences:
        sizes = track(range(1, options.samples + 1), description=f"confidence {confidence}", console=console)
        coverage, at = min((smallest_coverage(n, confidence), n) for n in sizes)
        failed |= coverage < Fraction(confidence)
        rates = options.samples * (options.samples + 1) // 2
        table.add_row(confidence, f"{float(coverage):.12f}", str(at), str(options.samples), f"{rates:,}")
    console.print(table)
    if failed:
        raise SystemExit("the bound does not cover")


if __name__ == "__main__":
    main()
