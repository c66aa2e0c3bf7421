"""tau_t = sum_{i<t} eta_i and sum_{i<t} eta_i^2, one number per parameter group, over all steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Sums = tuple[list[float] | None, list[float] | None]  # tau and the sum of squares, per group


class LearningTime:
    """Running sums of the learning rates of the updates that really happened.

    Both sums are None where nobody knows them: a resumed run whose step file does not hold them, or an optimizer
    without learning rates. They are never guessed.
    """

    def __init__(self, tau: Sequence[float] | None, squares: Sequence[float] | None) -> None:
        self._tau: list[float] | None
        self._squares: list[float] | None
        self.restart(tau, squares)
        self._undecided: list[tuple[list[float], Any]] = []

    def restart(self, tau: Sequence[float] | None, squares: Sequence[float] | None) -> None:
        """Go on from these sums."""
        self._tau = None if tau is None else list(tau)
        self._squares = None if squares is None else list(squares)

    def widen(self, groups: int) -> None:
        """There are so many parameter groups from now on: those that are new have moved nothing yet."""
        self._decide()
        missing = [0.0] * (groups - len(self._tau or self._squares or [0.0] * groups))
        self._tau = None if self._tau is None else self._tau + missing
        self._squares = None if self._squares is None else self._squares + missing

    def add(self, rates: list[float] | None, found_inf: Any = None) -> None:
        """Count one update with `rates`, unless the tensor `found_inf` says that a loss scaler skipped it.

        That tensor is looked at later, because looking waits for the device.
        """
        if rates is None:
            self._tau = self._squares = None
        elif found_inf is None:
            self._count(rates)
        else:
            self._undecided.append((rates, found_inf))
            if len(self._undecided) >= 256:
                self._decide()

    def values(self) -> Sums:
        """tau and the sum of squares up to here, per group."""
        self._decide()
        return (
            None if self._tau is None else list(self._tau),
            None if self._squares is None else list(self._squares),
        )

    def _decide(self) -> None:
        for rates, found_inf in self._undecided:
            if not float(found_inf):
                self._count(rates)
        self._undecided.clear()

    def _count(self, rates: list[float]) -> None:
        if self._tau is not None:
            self._tau = [tau + rate for tau, rate in zip(self._tau, rates, strict=True)]
        if self._squares is not None:
            self._squares = [total + rate * rate for total, rate in zip(self._squares, rates, strict=True)]
