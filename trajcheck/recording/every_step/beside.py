"""What is taken of every step beside the records: where it fails, it costs every-step.f64, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from trajcheck.errors import HeldRunError
from trajcheck.recording.every_step.every_step import EveryStep
from trajcheck.recording.schedule.time_spent import TimeSpent


class BesideRecords:
    """Calls work on an EveryStep, if there is one (None: it is not wanted); `failed` is told once why it ended."""

    def __init__(self, every: EveryStep | None, spent: TimeSpent, failed: Callable[[Exception], None]) -> None:
        self._every, self._spent, self._failed = every, spent, failed

    @property
    def wanted(self) -> bool:
        return self._every is not None

    def __call__(self, work: Callable[[EveryStep], None]) -> None:
        if self._every is None:
            return
        began = self._spent.clock()
        try:
            work(self._every)
        except HeldRunError:  # another recorder has the run: that ends all
            raise
        except Exception as error:
            self.end()
            self._failed(error)
        finally:
            self._spent.at_every_step(self._spent.clock() - began)

    def end(self) -> None:
        """Write what is on its way where that can be, and take nothing more."""
        every, self._every = self._every, None
        if every is not None:
            with suppress(Exception):
                every.close()
