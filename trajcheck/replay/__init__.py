"""Losses and gradients along the run, evaluated again on recorded samples."""
