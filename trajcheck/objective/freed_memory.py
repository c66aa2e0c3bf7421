"""Memory that evaluations free stays with the process.

glibc hands memory back to the system where a block of 128 kB or more is freed, or twice as much lies free at the end of
its heap; both limits grow with the largest block that was freed, to 32 and 64 MB. A small model's gradients, copies of
its batch and activations lie between: for 0.27 M parameters they were mapped, zeroed and given back 600 pages a row,
a tenth of the time of its replay.
"""

from __future__ import annotations

from functools import cache

import torch

#: The largest block by whose size glibc's limits still grow, without what malloc puts before it.
LARGEST = (32 << 20) - (1 << 16)


@cache
def keep_freed_memory() -> None:
    """Let those limits grow to their most, by freeing one block that nobody writes to."""
    torch.empty(LARGEST, dtype=torch.uint8)
