"""A report as it stands in its folder, and several together."""
