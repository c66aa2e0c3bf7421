"""Files of torch.save, and pickles in general, as data: nothing in them is imported, called or executed.

inert.py         what a pickle becomes: plain values, and records of everything else, by name
budget.py        how much one pickle may cost
opcodes.py       the interpreter: a stack, a memo and a mark stack, as Python's own has them
calls.py         what a call in a pickle makes: the allow-list of those that make plain values or tensors
numpy_values.py  numbers and arrays of numpy
tensors.py       storages and tensors, and their extents in the file
zip_entries.py   the container since torch 1.6: entries that lie in a file as they are
legacy.py        the format before
torch_file.py    begin here: `read_torch_file`
walking.py       finding things in what was read: state dicts, numbers by their keys
"""
