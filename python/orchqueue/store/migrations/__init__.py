"""The steps from an older schema to this version's. `run.py` performs them, `versions/` holds them."""

HEAD = "0001"
"""Revision that this version needs. Kept here so that an up-to-date store opens without loading Alembic."""
