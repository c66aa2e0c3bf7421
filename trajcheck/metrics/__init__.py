"""Formulas and nothing else: pure functions from columns to columns, one family a file."""
