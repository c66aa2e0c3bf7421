"""`trajcheck analyze`."""
