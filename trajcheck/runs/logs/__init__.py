"""Rates and losses of every step, as a log beside a run holds them, and the times tau that follow."""
