"""every-step.f64 against the records of the same run: what both say of a step must be the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from trajcheck.errors import RunError
from trajcheck.readable import some_of
from trajcheck.runs.formats.native.every_step import EVERY_STEP, LOSS, RATE, RECORD_BYTES, EveryStepRecords
from trajcheck.runs.formats.verification import RunVerification
from trajcheck.runs.run_info import RunInfo


class Said(Protocol):
    """What a step file says of its step."""

    @property
    def step(self) -> int | None: ...
    @property
    def loss(self) -> float | None: ...
    @property
    def lr(self) -> tuple[float, ...] | None: ...


def check_every_step(run: RunVerification, folder: Path, info: RunInfo, said: Iterable[Said]) -> None:
    """Add to `run` what is wrong with the file: numbers that none can be, and such as a record has otherwise. `said` is
    of steps that no loss scaler skipped, in a job of one rank."""
    path = folder / EVERY_STEP
    try:
        records = EveryStepRecords(path)
    except RunError as error:
        run.damage.append(str(error))
        return
    run.bytes += records.count * RECORD_BYTES + records.torn
    if records.torn:
        run.notes.append(f"{EVERY_STEP} ends with {records.torn} bytes of a record that was not written whole")
    if info.ended is not None and records.count > info.ended.step:
        run.damage.append(
            f"{path}: {records.count:,} records; the recording ended before step {info.ended.step:,}, so there are "
            f"{info.ended.step:,} at most."
        )
    other: dict[str, list[str]] = {"loss": [], "rate": []}
    for each in said:
        if each.step is None or each.step >= records.count:
            continue
        for what, column, own in (("loss", LOSS, each.loss), ("rate", RATE, _one(each.lr))):
            there = records.at(each.step, column)
            if own is not None and there == there and there != own:
                other[what].append(str(each.step))
    for what, steps in other.items():
        if steps:
            run.damage.append(
                f"{path}: the {what} of {len(steps)} steps is another than in the records of these steps: "
                f"{some_of(steps)}."
            )


def _one(rates: tuple[float, ...] | None) -> float | None:
    return rates[0] if rates and len(set(rates)) == 1 else None
