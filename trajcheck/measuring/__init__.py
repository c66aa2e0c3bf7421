"""One run, measured towards references: what is needed, what of it is saved, the rest; columns, no report."""
