"""`trajcheck verify`."""
