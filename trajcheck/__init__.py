"""Offline analysis of neural-network training trajectories."""

__version__ = "0.1.0"
