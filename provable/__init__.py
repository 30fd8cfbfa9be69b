"""provable proposes."""
