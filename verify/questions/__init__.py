"""Questions about a compact network on a domain, each answered PROVED, REFUTED (with a replayed input) or UNKNOWN.

    arg_max       the same largest output, or wherever the original leads by more than a margin
    per_output    |original - compact| <= eps_i for every output i
    relative      the same with eps_i = share * (range of the original's output i)
    unsafe        a VNN-LIB property of the compact network alone
    sample        how many boxes of a declared sample are certified, and what follows with confidence
        │
        └──► search: branch and bound on the inputs for any of them

Theory: theory_notes/questions.md. No auditor re-does these proofs; only deviations have certificates.
"""
