"""What a checkpoint takes from a recording, and how a recording ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trajcheck.errors import RecorderError
from trajcheck.readable import some_of
from trajcheck.recording.step.findings import found_on_the_way
from trajcheck.recording.step.vectors import Tensors
from trajcheck.recording.step_ends import StepEnds
from trajcheck.recording.step_parts import StepParts
from trajcheck.runs.run_info import CLOSED


class RunEnd:
    """Between two steps: none of them is being made, but one that failed."""

    def __init__(self, parts: StepParts, ends: StepEnds) -> None:
        self._of, self._ends = parts, ends
        self._stopped = False

    def state_dict(self) -> dict[str, Any]:
        self._ends.settle()
        self._of.writer.begin()
        self._of.beside(lambda every: every.flush())
        self._of.writer.flush()  # a checkpoint ahead of the records would leave a gap in the run that goes on from it
        tau, squares = self._of.writer.sums()
        return {"step": self._of.step, "tau": tau, "tau_squares": squares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._of.step != self._of.writer.start or state["step"] != self._of.step:
            raise RecorderError(
                f"load_state_dict(): this state is of step {state['step']}, and the recorder is at step "
                f"{self._of.step}. Make it with start_step={state['step']}, and load its state before the first step."
            )
        self._of.writer.go_on_from((state["tau"], state["tau_squares"]))

    def finish(self) -> str:
        """Record the final iterate, with what its evaluation needs, and wait until all is written; how the recording
        ended, in words.

        The iterate is left out where something else has changed the parameters since the last step, unless it did so
        before that step too, as an outer loop does that edits every iterate: it is not x_t of the number that it had.
        """
        self._ends.settle()
        if self._of.writer.resumed and self._of.step == self._of.writer.start:
            return CLOSED
        self._of.writer.begin()
        ended = CLOSED
        held = (
            self._of.vectors.iterate if self._of.part.inside else None
        )  # a step that failed half-way may have changed x_t
        if held is None:
            self._of.unseen.arrives(self._of.step, content=False)
            unseen = self._of.unseen.take()
            if self._of.unseen.moved_before(self._of.step):
                names = some_of(list(self._of.unseen.all.names))
                ended = f"{CLOSED}; the final iterate is left out: after the last step {self._others} changed {names}"
            else:
                self._write_final(self._of.vectors.take_iterate(), unseen)
        else:
            self._write_final(held, self._of.unseen.take())
        self._of.beside(lambda every: every.ends(self._of.unseen.all.last == self._of.step))
        self._of.writer.close()
        self._of.writer.check()
        return ended

    @property
    def _others(self) -> str:
        return f"something else than {self._of.optimizers.name}"

    def _write_final(self, iterate: Tensors, unseen: dict[str, Any]) -> None:
        if not self._of.part.inside:
            self._of.summed.end(self._of.step)
        self._of.records.record_final(self._of.step, iterate, unseen)

    def said(self) -> list[str]:
        """What was found on the way, at the end."""
        return found_on_the_way(
            self._of.optimizers.name,
            self._of.unseen.to_say,
            self._of.records.elsewhere,
            self._of.part.lacking,
        )

    def stop(self, ended: str) -> None:
        """Write what was handed over, say in the run how recording ended, and let go of everything."""
        if not self._stopped:
            self._stopped = True
            self._of.beside.end()
            self._of.writer.end(self._of.step, ended)
        self._of.observations.reset()
        self._of.vectors.release()
        self._of.summed.release()
