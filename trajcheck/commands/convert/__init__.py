"""`trajcheck convert`."""
