"""What a run is known by where nothing gives it an id: names, shapes and samples of its first checkpoints.

The same for a folder and for a tar file of it; a training that goes on keeps it. Two checkpoints, as several trainings
may begin at one x_0. Of remote files whose listing says the hashes, these stand for samples: nothing is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.remote.file import remote_file
from trajcheck.runs.formats.archives.checkpoint import Checkpoint
from trajcheck.runs.formats.archives.roles import model_names, sample

FIRST = 2


def identity(checkpoints: Sequence[Checkpoint]) -> str | None:
    """sha256:... of samples; None where there is no checkpoint. Raises StepFileError."""
    if not checkpoints:
        return None
    digest = hashlib.sha256()
    if (listed := _listed(checkpoints[:FIRST])) is not None:
        digest.update(repr(listed).encode())
        return f"sha256:{digest.hexdigest()}"
    with ExtentReader() as reader:
        for each in checkpoints[:FIRST]:
            for shown, name in sorted(model_names(each).items()):
                digest.update(f"{shown!r}\n".encode("utf-8", "surrogateescape"))
                digest.update(sample(reader, each.tensors[name]))
    return f"sha256:{digest.hexdigest()}"


def _listed(checkpoints: Sequence[Checkpoint]) -> list[list[str]] | None:
    """The hashes of the files of each, where they are remote and their listing says them all."""
    found = []
    for each in checkpoints:
        paths = {part.path for extent in each.tensors.values() for part in (extent.parts or (extent.undivided,))}
        files = [remote_file(path) for path in paths]
        hashes = [file.sha256 for file in files if file is not None and file.sha256]
        if not hashes or len(hashes) < len(files):
            return None
        found.append(sorted(hashes))
    return found
