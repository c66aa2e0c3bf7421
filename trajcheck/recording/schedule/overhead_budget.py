"""An enforced limit on the time that recording takes from training: scheduled records are left out, in whole pairs."""

from __future__ import annotations

import random
from collections.abc import Callable

from trajcheck.recording.schedule.time_spent import TimeSpent

#: Seconds of records that are never grudged, so that short runs are recorded as they were scheduled.
GRACE = 2.0


class OverheadBudget:
    """Decides which of the scheduled steps are recorded, so that records take at most `share` of the training time.

    With R the seconds that records have taken, E those of exporting the loss program, T those of training and c the
    mean cost of a pair of records, a pair is recorded if

        R + c (1 + u) <= A(T),    A(T) = GRACE + max(0, share T - E),

    u uniform in (0, 1), drawn anew after every pair that is recorded. So the limit holds at every step of the run,
    GRACE aside, and the gaps between records vary at random about c / share, up to twice that: nothing periodic in
    training is always met at the same phase. Where the length of the run is known (`planned`), what may be spent is
    spread over what is scheduled, lest the beginning take it all: of a pair that is the share p of the schedule

        R + c u <= p A(T_end),    T_end the mean time of a step so far times the number of steps,

    is asked as well, which leaves out nothing where all that is scheduled fits. What is decided depends on times, not
    on values, and a record weighs as many steps as it stands for, so sums over the run stay estimates of the sums over
    all steps.

    What costs every step the same, as window sums do, is not counted: leaving out records does not save it.

    A pair is two consecutive steps where the schedule has them, else two scheduled steps one after the other: the
    chords of the smallest stride are what the quantities of an update need. `say` gets one line at the first omission.
    """

    def __init__(self, share: float, spent: TimeSpent, seed: str, say: Callable[[str], None]) -> None:
        self.share, self._spent, self._seed, self._say = share, spent, seed, say
        self._left_out: list[int] = []  # since the last record
        self._allowed = True
        self._partner: int | None = None  # the second step of the pair that was decided last
        self._single = False  # whether a step without a partner next to it was decided last, and waits for another
        self._draw = 0.0
        self._said = False
        self._asked = 0  # scheduled steps so far
        self._scheduled = self._steps = 0  # in all, where it is known

    def planned(self, records: int, steps: int) -> None:
        """So many steps are scheduled, of so many that the run has from here on."""
        self._scheduled, self._steps = records, steps

    def allows(self, step: int, followed: bool) -> bool:
        """Whether a scheduled step is recorded; `followed`: the schedule pairs it with the next. In order of steps."""
        self._asked += 1
        if step == self._partner:
            self._partner = None
        elif followed:
            self._decide(step)
            self._partner, self._single = step + 1, False
        elif self._single:
            self._single = False
        else:
            self._decide(step)
            self._single = True
        if not self._allowed:
            self._left_out.append(step)
        return self._allowed

    def recorded(self, step: int) -> int:
        """A step is recorded: how many scheduled ones were left out before it, since the last."""
        left_out, self._left_out = self._left_out, []
        return sum(omitted < step for omitted in left_out)  # the final iterate is recorded whatever it costs

    @property
    def pair_cost(self) -> float:
        """c, in seconds."""
        spent = self._spent
        return 2 * spent.records / spent.recorded_steps if spent.recorded_steps else 0.0

    @property
    def spacing(self) -> float:
        """Steps from one pair to the next that the limit allows in the long run; 0 while nothing was left out."""
        if not self._said or self._spent.training <= 0:
            return 0.0
        return self.pair_cost / (self.share * self._spent.training / self._spent.steps)

    def _decide(self, step: int) -> None:
        spent, cost = self._spent, self.pair_cost
        self._allowed = spent.records + cost * (1 + self._draw) <= self._allowance(spent.training)
        if self._allowed and self._scheduled and spent.steps:
            at_the_end = self._allowance(spent.training / spent.steps * self._steps)
            passed = min((self._asked + 1) / self._scheduled, 1.0)  # this step and its partner among them
            self._allowed = spent.records + cost * self._draw <= passed * at_the_end
        if self._allowed:
            self._draw = random.Random(f"{self._seed}/overhead/{step}").random()
        elif not self._said:
            self._said = True
            self._announce(step)

    def _allowance(self, training: float) -> float:
        """Seconds that records may take of so many seconds of training."""
        return GRACE + max(0.0, self.share * training - self._spent.export)

    def _announce(self, step: int) -> None:
        record, training = self.pair_cost / 2, self._spent.training / max(self._spent.steps, 1)
        self._say(
            f"from step {step} on, some of the scheduled steps are not recorded: a record takes {1e3 * record:.3g} ms "
            f"of the training loop, a step {1e3 * training:.3g} ms, and overhead={self.share:g} allows "
            f"{100 * self.share:.3g}% of it. To record more: fewer parameters (parameters=), smaller gradients "
            "(grad_dtype=torch.bfloat16), a faster disk, or a higher overhead= (None: no limit)."
        )
