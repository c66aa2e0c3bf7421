"""Figures that show several runs together, from the reports of each."""
