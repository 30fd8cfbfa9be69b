"""Complete methods for small ReLU networks: what a branch and bound can be checked against.

    a pair of networks ─► system.relu_system: one chain of ReLU units, exact rationals
        ├─► enumeration   every activation region, exact           2 to 4 inputs, tens of units
        ├─► relaxation    linear program, bound proved exactly     hundreds of units
        └─► milp          big-M mixed-integer program (HiGHS)      tens of unstable units, to a tolerance
                │
            deviation: one question to any of them, with a verdict that rests on what is exact

Theory: theory_notes/milp.md.
"""
