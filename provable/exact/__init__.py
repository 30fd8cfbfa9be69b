"""Pruning that changes nothing on a declared domain: neurons that never fire leave, neurons that always fire merge."""
