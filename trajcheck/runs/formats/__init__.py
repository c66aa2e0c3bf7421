"""Disk layouts of runs, each in a file or folder of its own behind one seam.

stored_run.py   what a format answers: begin here to add one
recognise.py    the table of formats, and the only door: the format of a folder
native/         trajcheck's own, which recording/ writes
archives/       those of others: checkpoints of a library
"""
