"""The samples of each row, ready to be evaluated on, with what is known of them from rows before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from trajcheck.objective.sample import Sample
from trajcheck.replay.evaluations import Evaluations
from trajcheck.replay.plan import FIXED, fixed_everywhere
from trajcheck.replay.row_reading import RowData
from trajcheck.replay.sample_conventions import buffers_of, recorded_sample
from trajcheck.replay.setting import Setting


class RowSamples:
    """`fixed` are the samples of conventions that are the same on every row. `randomness` says of each place where the
    draws of the step's own sample came from."""

    def __init__(self, setting: Setting, fixed: Mapping[str, Sequence[Sample]]) -> None:
        self._setting, self._fixed = setting, fixed
        self._always_fixed = fixed_everywhere(setting.trajectory)
        self._own: dict[int, Evaluations] = {}  # on the own samples of this and the last row, by place
        self._shared: dict[tuple[str, int], Evaluations] = {}  # on samples that are the same on every row
        self.randomness: dict[int, str] = {}

    def of_row(self, name: str, data: RowData) -> Iterator[Evaluations]:
        """The samples of a convention on a row."""
        place = data.reads.row.place
        if name == "own":
            own = self._on(self._recorded(place, data), data)
            if "previous" in self._setting.plan.samples:
                self._own[place] = own
            yield own
            self.randomness[place] = self._setting.objective.randomness(own.sample)
        elif name == "previous":
            known = self._own.get(place - 1)
            yield known or self._on(self._recorded(place - 1, data), data)
        elif self._always_fixed:
            for number, sample in enumerate(self._fixed[name]):
                yield self._shared.setdefault((name, number), self._on(sample, data))
        else:
            snapshot = self._setting.trajectory.snapshots[place]
            for sample in self._fixed[name]:
                buffers = buffers_of(snapshot, self._setting.objective, data.small.__getitem__)
                yield self._on(replace(sample, buffers=buffers), data)

    def asked_again(self, name: str) -> bool:
        """Whether the next row may ask for grad f at this row's x_t, as that of its x_{t-1}."""
        return self._always_fixed if name in FIXED else name == "own" and "previous" in self._setting.plan.samples

    def forget(self, place: int) -> None:
        """Let go of the own samples that the row at a place does not need."""
        for passed in [before for before in self._own if before < place - 1]:
            del self._own[passed]

    def _on(self, sample: Sample, data: RowData) -> Evaluations:
        return Evaluations(self._setting.objective, sample, data.frozen)

    def _recorded(self, place: int, data: RowData) -> Sample:
        setting = self._setting
        snapshot = setting.trajectory.snapshots[place]
        load = data.small.__getitem__
        return recorded_sample(setting.trajectory, snapshot, setting.objective, setting.recorded_dtype, load)
