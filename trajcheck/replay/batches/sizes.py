"""What is known of the batches of one replay: how many examples each has, and what the loss is over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trajcheck.objective.sample import Sample
from trajcheck.replay.batches.examples import Examples, Numbers, micro_batches
from trajcheck.replay.batches.micro import MicroBatches
from trajcheck.replay.sample_conventions import Load, recorded_sample
from trajcheck.replay.setting import Setting
from trajcheck.scalars.micro_batches import first_accumulated


@dataclass(frozen=True)
class Sizes:
    """`probe` of each probe batch; `steps` of the micro-batches of accumulated steps, None where the run has none."""

    probe: Sequence[Numbers] = ()
    steps: Examples | None = None

    @classmethod
    def of(cls, setting: Setting, probe: Sequence[Sample], load: Load) -> Sizes:
        """Those of a replay; micro-batches are told by the first step of the run that has several, whichever rows are
        replayed. Raises ObjectiveError, StepFileError."""
        of_probe = Examples(setting.objective, probe).of_probe(probe) if probe else []
        place = first_accumulated(setting.trajectory) if "own" in setting.plan.samples else None
        if place is None:
            return cls(of_probe)
        trajectory, objective = setting.trajectory, setting.objective
        sample = recorded_sample(trajectory, trajectory.snapshots[place], objective, setting.recorded_dtype, load)
        return cls(of_probe, Examples(objective, micro_batches(sample)[:2]))

    def micro_batches(self, setting: Setting, sample: Sample) -> MicroBatches | None:
        """Those of a step's own sample."""
        if self.steps is None:
            return None
        return MicroBatches(setting.objective, sample, self.steps, setting.residency.micro)
