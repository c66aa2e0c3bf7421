"""What `--replay-dtype` may be, by name; torch is not needed to say so."""

from __future__ import annotations

#: One dtype for all real floating tensors, by the names that torch gives them.
ONE_DTYPE = ("float64", "float32", "bfloat16")

#: Each tensor in the dtype that it had in training.
AS_IS = "as-is"
