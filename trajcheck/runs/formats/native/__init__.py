"""trajcheck's own run format, version 1."""
