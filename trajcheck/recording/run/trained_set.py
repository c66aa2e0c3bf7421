"""Which parameters are trained, and in which groups, where that is not as run.json says: gradual unfreezing."""

from __future__ import annotations

from pathlib import Path

from trajcheck.files.opening import read_json
from trajcheck.recording.model.recorded_model import RecordedModel


class TrainedSet:
    """What differs from the run.json in `folder`. A resumed job keeps the description of the first."""

    def __init__(self, folder: Path, model: RecordedModel) -> None:
        self._model = model
        described = read_json(folder / "run.json").get("parameters") or []
        self._described = {entry["name"]: entry["group"] if entry.get("trainable") else None for entry in described}

    def differing(self) -> dict[str, int | None] | None:
        """By name: the number of the parameter group, None: frozen now. None where all are as described."""
        now = {p.name: p.group if p.trainable else None for p in self._model.parameters if p.recorded}
        found = {name: group for name, group in now.items() if self._described.get(name) != group}
        return found or None
