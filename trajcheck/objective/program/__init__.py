"""The exported loss program as plain data: its files, its operators, how it is written, checked and run."""
