"""Which steps were accumulated over several micro-batches that tell of the noise between them; from headers alone."""

from __future__ import annotations

from trajcheck.runs.trajectory import Trajectory

#: How they are called among the samples of a row.
MICRO = "micro"

NO_WEIGHT = "a micro-batch of this step counts with a weight that is not above 0"


def micro_batches(trajectory: Trajectory, place: int) -> int:
    """How many micro-batches of the recorded step at a place can be told apart; 0 where these are not several."""
    return 0 if no_micro_batches(trajectory, place) else _count(trajectory, place)


def no_micro_batches(trajectory: Trajectory, place: int) -> str:
    """Why a step whose sample can be evaluated has several micro-batches and cannot tell of their noise; '' where it
    can."""
    snapshot = trajectory.snapshots[place]
    source = trajectory.batch_source(snapshot)
    weights = snapshot.micro_weights or (source.micro_weights if source else None) or ()
    return NO_WEIGHT if any(weight is None or weight <= 0 for weight in weights) else ""


def _count(trajectory: Trajectory, place: int) -> int:
    snapshot = trajectory.snapshots[place]
    source = trajectory.batch_source(snapshot)
    if source is None or source.micro_batches < 2 or trajectory.no_sample(snapshot):
        return 0
    return source.micro_batches


def first_accumulated(trajectory: Trajectory) -> int | None:
    """The place of the first step with several; None where there is none."""
    places = range(len(trajectory.snapshots))
    return next((place for place in places if micro_batches(trajectory, place)), None)
