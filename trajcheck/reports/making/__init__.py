"""Files of a report, whole or not at all."""
