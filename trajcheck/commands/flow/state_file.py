"""The hidden file beside a flow's report that lets a killed integration go on: both solutions, and the rows so far.

It is written whole or not at all, at recorded times. Saving takes a twentieth of the time at most: where rows come
faster than a disk writes, some are passed over, and are computed again by whoever goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from trajcheck.commands.flow.integrate import State
from trajcheck.errors import OutputError, StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.plain_json import parse_json
from trajcheck.files.safetensors_header import read_header
from trajcheck.files.tensor_writing import write_tensors
from trajcheck.scalars.values import FlowScalars

NAME = ".flow-state.safetensors"
FORMAT = 1

#: Longest share of the time that saving may take.
SHARE = 0.05


def key_of(facts: Mapping[str, Any]) -> str:
    """sha256 of all that determines the numbers: another key, and the integration begins anew."""
    return hashlib.sha256(json.dumps({"format": FORMAT, **facts}, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Reached:
    """What is known after some records: their rows, and for each solution where to go on. `points` counts the rows
    that have a time."""

    rows: Sequence[FlowScalars]
    points: int
    states: Sequence[State]


class StateFile:
    """The state of one integration in a report's folder."""

    def __init__(self, folder: Path, key: str) -> None:
        self.path, self._key = folder / NAME, key
        self._next = 0.0

    def load(self, size: int) -> Reached | None:
        """The progress of an integration with the same key over `size` parameters; None where there is none.

        Raises StepFileError for a file that is damaged.
        """
        if not os.path.lexists(self.path):
            return None
        file = read_header(str(self.path), "remove it")
        try:
            text = parse_json(file.metadata["trajcheck"])
            if text["key"] != self._key:
                return None
            thetas = file.section("theta")
            states = []
            with ExtentReader() as reader:
                for number, state in enumerate(text["states"]):
                    theta = np.empty(size)
                    if thetas[str(number)].shape != (size,) or thetas[str(number)].dtype != "F64":
                        raise ValueError(f"theta/{number} is not of shape [{size}] in float64")
                    reader.widen(thetas[str(number)], 0, theta)
                    states.append(State(theta=theta, **state))
            return Reached([FlowScalars(**row) for row in text["rows"]], int(text["points"]), states)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StepFileError(f"{self.path}: not the state of a flow ({error!r}); remove it.") from error

    def save(self, progress: Reached, *, now: bool = False) -> None:
        """Replace the file, unless the last time was so short ago that saving would take too much of the time.

        `now` saves in any case. Raises OutputError.
        """
        began = monotonic()
        if began < self._next and not now:
            return
        import torch

        # An integration that has not begun has no step; one that has stands at the beginning of a step.
        states = [{name: getattr(s, name) for name in ("time", "step", "evaluations")} for s in progress.states]
        facts = {"rows": [asdict(row) for row in progress.rows], "points": progress.points, "states": states}
        thetas = {
            f"theta/{number}": torch.from_numpy(np.array(state.theta)) for number, state in enumerate(progress.states)
        }
        try:
            write_tensors(self.path, thetas, {"format": 1, "key": self._key, **facts})
        except OSError as error:
            raise OutputError(f"{self.path}: the state could not be written: {error.strerror}.") from error
        self._next = monotonic() + (monotonic() - began) / SHARE

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
