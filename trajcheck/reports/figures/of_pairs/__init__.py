"""Figures of one run beside others, from what compare wrote."""
