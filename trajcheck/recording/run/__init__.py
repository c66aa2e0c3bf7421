"""The way of a record to the disk."""
