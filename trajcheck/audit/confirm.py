"""Equal samples looked at whole: are all bytes of the steps equal, or those of the sample alone?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from trajcheck.audit.equal import EQUAL
from trajcheck.audit.findings import SUSPICIOUS, Audit, Finding, in_order
from trajcheck.errors import StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.runs.trajectory import Trajectory

#: Bytes that are read at a time.
BLOCK = 1 << 20


def confirmed(audit: Audit, trajectory: Trajectory, listed: Mapping[int, str]) -> Audit:
    """With what hashing the suspects shows; where a listing gives hashes of them, nothing is read."""
    hashes: dict[tuple[int, tuple[str, ...]], str] = {}

    def content(step: int, names: tuple[str, ...]) -> str:
        if (step, names) not in hashes:
            place = trajectory.index(step)
            assert place is not None
            hashes[step, names] = _hash(trajectory.snapshots[place].parameters, names)
        return hashes[step, names]

    found = []
    for each in audit.findings:
        if each.finding != EQUAL or each.belongs_to is None:
            found.append(each)
            continue
        if not each.tensors and all(listed.get(step) == listed.get(each.belongs_to, "") for step in each.steps):
            found.append(replace(each, evidence=f"{each.evidence}; one hash in the listing"))
            continue
        names = each.tensors or tuple(trajectory.shapes)
        try:
            same = len({content(step, names) for step in (*each.steps, each.belongs_to)}) == 1
        except StepFileError:  # which the reading of the whole files tells
            found.append(each)
            continue
        found.append(_with(each, same))
    return replace(audit, findings=in_order(found))


def _with(finding: Finding, same: bool) -> Finding:
    if same:
        return replace(finding, evidence=f"{finding.evidence}; so are all bytes (sha256)")
    return replace(finding, evidence=f"{finding.evidence}; other elements differ", severity=SUSPICIOUS)


def _hash(tensors: Mapping[str, Extent], names: Sequence[str]) -> str:
    found = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK))
    with ExtentReader() as reader:
        for name in names:
            extent = tensors[name]
            for start in range(0, extent.length, BLOCK):
                part = buffer[: min(BLOCK, extent.length - start)]
                reader.into(extent, start, part)
                found.update(part)
    return found.hexdigest()
