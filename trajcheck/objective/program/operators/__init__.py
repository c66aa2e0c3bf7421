"""The operators that a program may use, and no others: one line each, in torch's notation of schemas.

The first word of a line is the rule by which the elements that it makes are bounded (elements.py). None has an effect
but its result, and what it writes into the argument that `(a!)` marks. Not here, though torch has them: whatever opens
files, prints, resizes, reads memory as it lies (as_strided), or makes results of sizes that nothing bounds.
"""
