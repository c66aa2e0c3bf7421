"""Options, each declared once: Python's signature, the command line and the file of a batch are made from it."""
