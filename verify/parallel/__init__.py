"""Many sub-boxes on several processes or machines, surviving lost workers and restarts.

    workers      a function on many items: here, in processes, or on a Dask cluster
    pieces       a domain cut in pieces that are searched on their own, and what they prove together
    checkpoint   the pieces' state in a file, written atomically

Theory: theory_notes/branch_and_bound.md (a split never worsens the bound; the trees of the pieces are grafted).
"""
