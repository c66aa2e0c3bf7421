"""Another order of the hidden units of a network, which leaves its loss as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: A whole tensor by its name, in another order of its elements.
Reorder = Callable[[str, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Relabelling:
    """Another order of B's hidden units, which leaves its loss as it is: `to_a` brings a tensor of B, whole and of its
    own shape, into the order of A's units, and `to_b` a tensor of A into that of B's; each is the other's inverse."""

    to_a: Reorder
    to_b: Reorder
