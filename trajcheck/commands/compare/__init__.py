"""`trajcheck compare`."""
