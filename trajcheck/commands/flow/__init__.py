"""`trajcheck flow`."""
