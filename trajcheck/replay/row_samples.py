"""The samples of each row, ready to be evaluated on, with what is known of them from rows before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from trajcheck.objective.sample import Sample
from trajcheck.replay.around import Around
from trajcheck.replay.batches.sizes import Sizes
from trajcheck.replay.evaluations import Evaluations, Points
from trajcheck.replay.plan import fixed_everywhere
from trajcheck.replay.row_reading import RowData
from trajcheck.replay.sample_conventions import recorded_sample
from trajcheck.replay.setting import Setting


class RowSamples:
    """`fixed` are the samples of conventions that are the same on every row. `randomness` says of each place where the
    draws of the step's own sample came from; `sizes` what is known of how many examples
    batches have."""

    def __init__(self, setting: Setting, fixed: Mapping[str, Sequence[Sample]], sizes: Sizes) -> None:
        self._setting, self._fixed, self.sizes = setting, fixed, sizes
        self._always_fixed = fixed_everywhere(setting.trajectory)
        self._own: dict[int, Evaluations] = {}  # on the own samples of this and the last row, by place
        self._shared: dict[tuple[str, int], Evaluations] = {}  # on samples that are the same on every row
        self.randomness: dict[int, str] = {}

    def of_row(self, name: str, data: RowData) -> Iterator[Evaluations]:
        """The samples of a convention on a row."""
        place = data.reads.row.place
        if name == "own":
            own = self._recorded(place, data)
            if "previous" in self._setting.plan.samples:
                self._own[place] = own
            yield own
            self.randomness[place] = self._setting.objective.randomness(own.sample)
        elif name == "previous":
            yield self._own.get(place - 1) or self._recorded(place - 1, data)
        else:
            modes = self._setting.trajectory.snapshots[place].modes
            for number, sample in enumerate(self._fixed[name]):
                on = self._shared.get((name, number)) if self._always_fixed else None
                if on is None:
                    on = self._shared[name, number] = self._on(replace(sample, modes=modes))
                on.around = Points({each: data.around(each) for each in data.reads.around}, data.references)
                yield on

    def asked_again(self, name: str) -> bool:
        """Whether grad f at this row's x_t may be asked for again (Plan.gradient_again)."""
        return self._setting.plan.gradient_again(name, self._always_fixed)

    def forget(self, place: int) -> None:
        """Let go of the own samples that the row at a place does not need."""
        for passed in [before for before in self._own if before < place - 1]:
            del self._own[passed]

    def _on(self, sample: Sample) -> Evaluations:
        return Evaluations(self._setting.objective, sample)

    def _recorded(self, place: int, data: RowData) -> Evaluations:
        """On the recorded sample of a step: every point with what is around the sample, but for what the run never
        changes, which x* has of its own."""
        setting = self._setting
        snapshot = setting.trajectory.snapshots[place]
        sample = recorded_sample(setting.trajectory, snapshot, setting.objective, setting.recorded_dtype, data.load)
        on, around = self._on(sample), Around(data.around(place).frozen, sample.buffers)
        references = {number: around.with_some(own, setting.constant) for number, own in data.references.items()}
        on.around = Points(dict.fromkeys((place - 1, place, place + 1), around), references)
        return on
