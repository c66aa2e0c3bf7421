"""How much one pickle may cost: operations and memory, counted while it is read."""

from __future__ import annotations

MOST_BYTES = 100_000_000  # of the pickle itself
MOST_OPERATIONS = 20_000_000
MOST_MEMORY = 800_000_000  # estimated; a tensor takes 2,700 with its name, shape and place in the memo
MOST_MARKS = 1_000  # open at once: containers within one another
MOST_DEPTH = 1_000  # of what was made
MOST_ODD_KEYS = 10_000  # tuples and sets as keys, whose hashes anybody can make equal
LONGEST_NUMBER = 255  # bytes of an integer
LONGEST_LINE = 1_000  # bytes of a name or a number that ends with its line


class PickleError(ValueError):
    """A pickle that is not read: damaged, of a kind that is not known, or made to do harm."""


class Budget:
    """What is left of memory and of odd keys."""

    def __init__(self) -> None:
        self.memory, self.odd_keys = MOST_MEMORY, MOST_ODD_KEYS

    def spend(self, size: int) -> None:
        """Count bytes of memory. Raises PickleError."""
        self.memory -= size
        if self.memory < 0:
            raise PickleError(f"what it describes would take more than {MOST_MEMORY:,} bytes of memory")

    def odd_key(self) -> None:
        """Count a key that is a tuple or the like. Raises PickleError."""
        self.odd_keys -= 1
        if self.odd_keys < 0:
            raise PickleError(f"has more than {MOST_ODD_KEYS:,} keys that are tuples")
