"""Figures of one run, from what analyze and flow wrote."""
