"""Archives that others wrote: checkpoints of a library, one a step, read where they lie.

archive.py      what all of them have in common: begin here to add one
checkpoint.py   one step, as its files have it
roles.py        which of its tensors are trained, frozen, tied, buffers
step_names.py   numbers in the names of files and folders
"""
