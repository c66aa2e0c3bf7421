"""A report's columns in the tools in which people watch their trainings."""
