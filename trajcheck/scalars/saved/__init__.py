"""Scalars kept beside a report, so that no number is computed twice: records (record.py) in files (encoding.py) of a
store (store.py), found again by what they were made from (keys.py)."""

#: Their folder inside a report.
FOLDER = "scalars"

#: Seconds of work that may be lost: records are written when the oldest one waiting is that old.
INTERVAL = 5.0
