"""Kills, full disks and other faults, hundreds of times, counted in a table."""
