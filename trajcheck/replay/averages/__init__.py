"""Losses at averages of recorded iterates, beside those at the iterates."""
