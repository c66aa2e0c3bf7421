"""`trajcheck report`."""
