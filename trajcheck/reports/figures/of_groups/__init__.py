"""Figures of groups of runs, means and spreads; each file with a PICTURE is one."""
