"""The ledger: which assumptions of optimization theory hold along a run's path, with which constants."""
