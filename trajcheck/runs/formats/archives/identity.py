"""What a run is known by where nothing gives it an id: names, shapes and samples of its first checkpoints.

The same for a folder and for a tar file of it; a training that goes on keeps it. Two checkpoints, as several trainings
may begin at one x_0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from trajcheck.files.extent_reader import ExtentReader
from trajcheck.runs.formats.archives.checkpoint import Checkpoint
from trajcheck.runs.formats.archives.roles import model_names, sample

FIRST = 2


def identity(checkpoints: Sequence[Checkpoint]) -> str | None:
    """sha256:... of samples; None where there is no checkpoint. Raises StepFileError."""
    if not checkpoints:
        return None
    digest = hashlib.sha256()
    with ExtentReader() as reader:
        for each in checkpoints[:FIRST]:
            for shown, name in sorted(model_names(each).items()):
                digest.update(f"{shown!r}\n".encode("utf-8", "surrogateescape"))
                digest.update(sample(reader, each.tensors[name]))
    return f"sha256:{digest.hexdigest()}"
