"""Figures from saved columns, one a file; catalogue.py lists them."""
