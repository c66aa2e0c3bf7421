"""Every assumption of the ledger, in its order."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from trajcheck.metrics.assumptions.assumption import DECLARED, Assumption

#: The modules that declare assumptions, in the order of the ledger, and within a module in that of their declarations.
MODULES = (
    *("convexity", "secant", "growth", "alpha_beta", "smoothness", "generalized_smoothness"),
    *("strong_growth", "expected_smoothness"),
)


@cache
def assumptions() -> dict[tuple[str, str], Assumption]:
    """By table and name."""
    found: dict[tuple[str, str], Assumption] = {}
    for name in MODULES:
        module = import_module(f"trajcheck.metrics.assumptions.{name}").__name__
        for key, each in DECLARED[module].items():
            assert key not in found, f"{key} is declared twice"
            found[key] = each
    return found
