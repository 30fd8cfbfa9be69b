"""Exact coverage of the Clopper-Pearson and the tolerance bound, for every sample size: never below nominal.

    python scripts/check_coverage.py [--samples 500] [--confidences 0.95 0.999] [--contents 0.9 0.95]

The bound U(k) on a rate covers the rate p if p <= U(K), K ~ Bin(n, p). Coverage falls in p between two values of U and
jumps up behind each, so its infimum is reached just above some U(k), where it is 1 - P(Bin(n, p) <= k). Tails are
rounded up in integer arithmetic, so the printed coverage is a lower bound. Theory: theory_notes/clopper_pearson.md.

The tolerance bound, the r-th largest of n values, exceeds a share c of any continuous distribution with probability
1 - P(Bin(n, 1 - c) <= r - 1), and of any other at least so surely; that number is exact. Theory:
theory_notes/tolerance.md.
"""

import argparse
from fractions import Fraction

from rich.console import Console
from rich.progress import track
from rich.table import Table

from verify.statistical.binomial import binomial_tail, binomial_tail_upper
from verify.statistical.clopper_pearson import rate_upper
from verify.statistical.tolerance import tolerance_rank

JUST_ABOVE = Fraction(1, 2**70)


def smallest_coverage(samples: int, confidence: str) -> Fraction:
    """Lower bound of the coverage of the bound of `samples` draws, over all rates."""
    rates = [Fraction(rate_upper(k, samples, confidence)) + JUST_ABOVE for k in range(samples)]
    return min(1 - binomial_tail_upper(samples, k, rate) for k, rate in enumerate(rates) if rate < 1)


def tolerance_confidence(samples: int, content: str, confidence: str) -> Fraction:
    """Exact confidence of the bound; 1 where there are too few samples for one."""
    rank = tolerance_rank(samples, content, confidence)
    return 1 - binomial_tail(samples, rank - 1, 1 - Fraction(content)) if rank else Fraction(1)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=500, help="every size up to this one (500)")
    parser.add_argument("--confidences", nargs="+", default=["0.95", "0.999"])
    parser.add_argument("--contents", nargs="+", default=["0.9", "0.95"], help="shares for the tolerance bound")
    options = parser.parse_args()
    console, failed, numbers = Console(), False, range(1, options.samples + 1)
    table = Table("content", "confidence", "smallest", "at a sample of", "sizes", box=None, pad_edge=False)
    for content in options.contents:
        for confidence in options.confidences:
            found, at = min((tolerance_confidence(n, content, confidence), n) for n in numbers)
            failed |= found < Fraction(confidence)
            table.add_row(content, confidence, f"{float(found):.12f}", str(at), str(options.samples))
    console.print(table)
    table = Table("confidence", "smallest coverage", "at a sample of", "sizes", "rates", box=None, pad_edge=False)
    for confidence in options.confidences:
        sizes = track(numbers, description=f"confidence {confidence}", console=console)
        coverage, at = min((smallest_coverage(n, confidence), n) for n in sizes)
        failed |= coverage < Fraction(confidence)
        rates = options.samples * (options.samples + 1) // 2
        table.add_row(confidence, f"{float(coverage):.12f}", str(at), str(options.samples), f"{rates:,}")
    console.print(table)
    if failed:
        raise SystemExit("the bound does not cover")


if __name__ == "__main__":
    main()
