"""Whether a reference point depends on the samples of the run's own steps."""
