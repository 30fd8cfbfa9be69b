"""The auditor: a small, exact, independent judge of deviation certificates (standard library and numpy only)."""

from verify.audit.check import AuditReport, Verdict, audit

__all__ = ["AuditReport", "Verdict", "audit"]
