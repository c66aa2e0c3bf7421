"""`trajcheck inspect`."""
