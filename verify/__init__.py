"""verify judges."""
