"""Draws that are the same on every machine, whatever is installed there.

Draw c of seed s is the first 64 bits, as a little-endian number, of

    sha256(b"trajcheck draw" + s in 8 bytes + c in 8 bytes)       both little-endian, c = 0, 1, 2, ...

A number below n is the first draw, from c on, below the largest multiple of n, modulo n. `choose` puts 0..n-1 in
another order by exchanging item i with one of i..n-1, and takes the first.
"""

from __future__ import annotations

import hashlib

_ALL = 1 << 64


class Draws:
    """The draws of one seed, in their order."""

    def __init__(self, seed: int) -> None:
        self._seed, self._count = seed.to_bytes(8, "little"), 0

    def number(self) -> int:
        text = b"trajcheck draw" + self._seed + self._count.to_bytes(8, "little")
        self._count += 1
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")

    def below(self, n: int) -> int:
        """One of 0..n-1, each as likely."""
        while (found := self.number()) >= _ALL - _ALL % n:
            pass
        return found % n


def choose(count: int, n: int, seed: int) -> list[int]:
    """`count` different numbers of 0..n-1, at most n, in the order in which they are drawn."""
    draws, moved, found = Draws(seed), dict[int, int](), []
    for i in range(count):
        j = i + draws.below(n - i)
        found.append(moved.get(j, j))
        moved[j] = moved.get(i, i)
    return found
