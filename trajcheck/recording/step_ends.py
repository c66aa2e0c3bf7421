"""What becomes of a step when it is over: it is counted, and recorded where that is wanted."""

from __future__ import annotations

from typing import Any

from trajcheck.recording.step.learning_time import Sums
from trajcheck.recording.step.vectors import Tensors
from trajcheck.recording.step_parts import StepParts


class StepEnds:
    """Of a step that was made, or that a loss scaler skipped."""

    def __init__(self, parts: StepParts) -> None:
        self._of = parts

    def end(self) -> None:
        """All optimizers have made their part, or no more of them will."""
        part, missing = self._of.part, self._of.part.missing()
        rates, found_inf = part.rates, part.found_inf
        iterate, gradients = self._of.vectors.iterate, self._of.vectors.gradients
        step, sums = self._count(rates, found_inf)
        if self._of.summed.wanted:
            self._of.summed.count(self._of.observations.loss(), found_inf)
        if self._of.beside.wanted:
            apart = self._of.place.moved or (iterate is not None and self._of.place.reason())
            loss = None if apart else self._of.observations.loss()
            used = not (missing or apart)
            self._of.beside(lambda every: every.made(step, loss, rates, found_inf, used=used))
        if iterate is not None:
            skipped = found_inf is not None and bool(found_inf)
            self._record(step, sums, {**iterate, **(gradients or {})}, rates, skipped, missing)
        self._next()

    def settle(self) -> None:
        """End a step that some of the optimizers made alone. If the loss scaler skipped the update of the observed
        step, record it as skipped and count it."""
        if self._of.part.others_made and not self._of.part.inside:
            self.end()
        if not self._of.observations.skipped():
            return
        self._of.writer.begin()
        self._of.unseen.arrives(self._of.step, content=False)
        recorded, rates, loss = self._of.scheduled, self._of.observations.rates, self._of.observations.loss()
        self._of.beside(lambda every: every.begins(self._of.step, self._of.unseen.before(self._of.step)))
        if recorded:
            self._of.summed.turn(self._of.step)
        step, sums = self._count(None, None, made=False)
        self._of.summed.skip()
        self._of.beside(lambda every: every.skipped(step, loss))
        if recorded:
            self._record(step, sums, self._of.vectors.take_iterate(), rates, skipped=True)
        self._next()
        self._of.unseen.left(content=recorded or self._of.scheduled)

    def _count(self, rates: list[float] | None, found_inf: Any, *, made: bool = True) -> tuple[int, Sums]:
        """Count the step; its number, and the sums of rates before it.

        This comes before any waiting: a KeyboardInterrupt later must not leave x_{t+1} under the number t.
        """
        self._of.writer.begin()
        step, sums = self._of.step, self._of.writer.sums() if self._of.scheduled else (None, None)
        self._of.step += 1
        self._of.part.reset()
        self._of.vectors.forget()
        if made:
            self._of.writer.count(rates, found_inf)
        return step, sums

    def _record(
        self, step: int, sums: Sums, vectors: Tensors, rates: list[float] | None, skipped: bool, missing: str = ""
    ) -> None:
        unseen, apart = self._of.unseen.take(), self._of.place.reason()
        self._of.records.record(step, sums, vectors, rates, unseen, skipped=skipped, missing=missing, apart=apart)

    def _next(self) -> None:
        """Prepare for the next step."""
        self._of.writer.thin()
        self._of.observations.reset()
        self._of.records.forget_settings()
        self._of.fresh = False
        self._of.spent.end_step(recorded=self._of.scheduled)
        self._of.place.reset()
        self._of.scheduled = self._of.writer.wants(self._of.step)
