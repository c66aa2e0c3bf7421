"""`trajcheck table`."""
