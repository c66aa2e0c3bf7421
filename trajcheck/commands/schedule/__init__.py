"""`trajcheck schedule`."""
