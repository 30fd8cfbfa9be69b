"""Certificates and audit verdicts as statements that others can sign, carry and check.

A signature says who stands behind a statement; only the auditor says whether it is true. The two are never mixed.
"""
