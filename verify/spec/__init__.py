"""What is claimed: the domain, the property, the verdict. No arithmetic on networks happens here.

VNN-LIB text ──► vnnlib ──► Property ──► Box, Box, ...  (exact fractions)
deviation: Verdict, the tree of sub-boxes that a proof consists of, and the record a search returns
"""
