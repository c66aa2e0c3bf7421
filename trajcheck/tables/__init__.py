"""From scalars to the columns of steps.csv and references.csv: rows, scalars and recorded metadata become named columns
with reasons, and meet the formulas of metrics/."""
