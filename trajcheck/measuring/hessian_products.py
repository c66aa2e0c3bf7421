"""How many products the eigenvalues of Hessians take, for what is said before any is computed."""

from __future__ import annotations

#: Products that those of one Hessian take, from experience, with the one along the gradient: of an analysis, by the
#: ends that are asked for, and of a flow, which takes both and wants their residuals small.
OF_ANALYSIS, OF_FLOW = {"max": (11, 60), "min": (15, 500), "both": (15, 500)}, (25, 500)

#: Evaluations with gradient that a product is worth.
WORTH = (1.5, 4.0)


def in_words(hessians: int, products: tuple[int, int]) -> list[str]:
    """Two lines: of so many Hessians, with so many products each, at the least and at the most."""
    low, high = products
    return [
        f"{hessians:,} Hessians' extreme eigenvalues, of {low} to {high} products each: {hessians * low:,} to",
        f"{hessians * high:,} products, each as long as {WORTH[0]:g} to {WORTH[1]:g} evaluations with gradient",
    ]
