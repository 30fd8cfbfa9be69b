"""The auditor: a small, exact, independent judge of deviation certificates."""
