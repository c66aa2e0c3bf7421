"""Figures of what was fitted to all rows of one run."""
