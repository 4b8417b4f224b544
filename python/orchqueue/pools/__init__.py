"""Pools: the replicas that are started or attached, watched, and told to the scheduler."""
