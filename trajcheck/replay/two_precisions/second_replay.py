"""Some rows replayed once more, in another precision: what rounding there is in the first."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from trajcheck.errors import ObjectiveError
from trajcheck.objective.another_dtype import in_another_dtype
from trajcheck.objective.objective import Objective
from trajcheck.replay.fitting import trained_dtypes
from trajcheck.replay.plan import Plan
from trajcheck.replay.replay import Replay
from trajcheck.runs.references import Reference
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Rows
from trajcheck.scalars.values import RowScalars

Found = dict[str, list[RowScalars]]


class SecondReplay:
    """A replay of rows in `dtype` with an objective that is in another one before and afterwards."""

    def __init__(
        self,
        trajectory: Trajectory,
        rows: Rows,
        references: Sequence[Reference],
        objective: Objective,
        dtype: str,
        plan: Plan,
    ) -> None:
        self.objective, self.evaluations = objective, 0
        self._trajectory, self._rows, self._references = trajectory, rows, references
        self._dtype, self._plan = dtype, plan

    def rows(self, progress: Callable[[float], object] = lambda steps: None) -> Generator[Found | str, None, None]:
        """As `Replay.rows`; where the objective fails in this dtype, which says nothing of the analysis itself, the
        reason in the row's place."""
        work, done = [row.place for row in self._rows.work], 0
        while done < len(work):
            try:
                for found in self._from(work[done:], progress):
                    done += 1
                    yield found
            except ObjectiveError as error:
                done += 1
                progress(1)
                yield str(error)

    def _from(self, places: Sequence[int], progress: Callable[[float], object]) -> Generator[Found, None, None]:
        with in_another_dtype(self.objective, self._dtype, trained_dtypes(self._trajectory)):
            rows = self._rows.some(places)
            replay = Replay(self._trajectory, rows, self._references, self.objective, self._dtype, self._plan)
            before = self.evaluations
            with closing(replay.rows(progress)) as found:
                for each in found:
                    self.evaluations = before + replay.evaluations
                    yield each
