"""Columns of tables other than steps.csv and references.csv: a module a table."""
