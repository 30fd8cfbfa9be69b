"""Proofs for every input of a box: the search for them, in float64 with rigorous error terms.

original, compact ──► lift.align ──► program.compile_pair ──► bounds of a batch of sub-boxes
boxes ──► deviation.verify_deviation: branch and bound on the inputs ──► verdict, proved bound, trees
rules/: one file per family of operations. Nothing here is trusted by the auditor.
"""
