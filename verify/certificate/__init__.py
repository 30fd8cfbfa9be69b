"""The certificate: its format (SPEC.md) and how one is written."""
