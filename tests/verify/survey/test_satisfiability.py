"""The SAT solver against all assignments."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from verify.survey.satisfiability import satisfying

VARIABLES = 4
literals = st.integers(1, VARIABLES).flatmap(lambda v: st.sampled_from([v, -v]))
formulas = st.lists(st.frozensets(literals, max_size=3), max_size=14)


def holds(clauses, assignment):
    return all(clause & assignment for clause in clauses)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(formulas)
def test_it_finds_an_assignment_iff_there_is_one(clauses):
    every = [{v if s else -v for v, s in enumerate(signs, 1)} for signs in itertools.product((0, 1), repeat=VARIABLES)]
    found = satisfying(clauses, VARIABLES)
    assert (found is not None) == any(holds(clauses, a) for a in every)
    if found is not None:
        assert found in every
        assert holds(clauses, found)
