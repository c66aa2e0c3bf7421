"""What a log beside a run says of its steps: rates, losses. A format that finds one answers with it (`StoredRun.log`),
and so does the reader of a CSV that the user names (csv_log.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: What a logged loss is: f(x_t; z_t), with which update t began, ...
AT_STEP = "step"
#: ... or a mean over the steps since the entry before, as Hugging Face's Trainer logs it: of no single iterate.
MEAN = "mean"


@dataclass(frozen=True)
class RunLog:
    """`lr[t]` are the rates with which update t, from x_t to x_{t+1}, was made, one a parameter group; a single one is
    that of all groups. `loss[t]` is f(x_t; z_t) where `loss_kind` is AT_STEP; a MEAN stands under the step that it ends
    with, and fills no loss. `grad_sq[t]` is |g_t|^2 of the gradient as the optimizer used it, `update_sq[t]`
    |x_{t+1} - x_t|^2; `skipped` are the steps whose update a loss scaler skipped. Steps may be missing; numbers are
    finite, and rates and squares not negative. `source` names the log in messages, and `files` are those it was read
    from.
    """

    source: str
    lr: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    loss: Mapping[int, float] = field(default_factory=dict)
    loss_kind: str = AT_STEP
    files: tuple[str, ...] = ()
    grad_sq: Mapping[int, float] = field(default_factory=dict)
    update_sq: Mapping[int, float] = field(default_factory=dict)
    skipped: frozenset[int] = frozenset()

    def before(self, other: RunLog | None) -> RunLog:
        """This log, with what it lacks altogether, rates or losses or squares, from another one."""
        if other is None or (self.lr and self.loss and not (other.grad_sq or other.update_sq)):
            return self
        losses = self if self.loss else other
        return RunLog(
            ", ".join(dict.fromkeys((self.source, other.source))),
            self.lr or other.lr,
            losses.loss,
            losses.loss_kind,
            (*self.files, *other.files),
            self.grad_sq or other.grad_sq,
            self.update_sq or other.update_sq,
            self.skipped | other.skipped,
        )
