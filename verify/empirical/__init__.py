"""What can be seen by running two networks: measurements on given inputs, and a search for the worst input.

inputs ──► measure: deviation per sample and output, arg-max agreement
box ─────► attack: the largest deviation found, replayed in float64; it can refute a claim and prove none
"""

from verify.empirical.measure import Comparison, check_comparable, compare, rows_for

__all__ = ["Comparison", "check_comparable", "compare", "rows_for"]
