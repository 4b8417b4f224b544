"""Measures the promise of a replica set, and the set-ups that break it or do it no harm."""
