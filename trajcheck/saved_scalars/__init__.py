"""Scalars kept beside a report, so that no number is computed twice: records (record.py) in files (files.py) of a
store (store.py), found again by what they were made from (identity.py)."""
