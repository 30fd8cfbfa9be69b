"""Backward linear bounds on a pair of networks: tighter per box than forward forms, and costlier."""
