"""The several batches of one row: their sums, and how many examples each has."""
