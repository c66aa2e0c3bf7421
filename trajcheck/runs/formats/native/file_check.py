"""One file of a run read from its first byte to its last: header, checksums, finite values."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trajcheck.errors import StepFileError
from trajcheck.files.checksums import METADATA, metadata_checksum, stored_checksums
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import FLOATING, Spec
from trajcheck.files.safetensors_header import TensorFile
from trajcheck.runs.formats.native.probes import open_probe_file, read_probe
from trajcheck.runs.formats.native.reading import open_step_file, read_rank, read_snapshot
from trajcheck.runs.formats.native.step_files import RANK_FILE
from trajcheck.runs.snapshot import Snapshot

#: Bytes that are read at a time; a multiple of the size of every number.
BLOCK = 1 << 20

#: What must be finite: a mask among buffers, or a batch, may well hold -inf.
_VECTORS = ("param", "master", "grad", "window")


@dataclass(frozen=True)
class FileCheck:
    """What was found in one file; `step` and what follows are unset of a probe file, or one that cannot be read."""

    path: Path
    bytes: int = 0
    tensors: int = 0
    compared: int = 0  # how many of them with a checksum
    damage: tuple[str, ...] = ()
    not_finite: str | None = None  # the first tensor that holds NaN or Inf
    step: int | None = None
    rank: int = 0
    batch_from: int | None = None
    has_batch: bool = False
    has_loss: bool = False
    loss: float | None = None
    lr: tuple[float, ...] | None = None  # of an update that was made


def check_step_file(path: Path, left_out: frozenset[str] = frozenset()) -> FileCheck:
    """Read a step file, that of one rank or of all; the parameters `left_out` need not be finite."""
    try:
        file, metadata = open_step_file(path)
        match = RANK_FILE.fullmatch(path.name)
        rank = int(match[2]) if match else 0
        snapshot = read_rank(path, rank) if match else read_snapshot(path)
        found = _read(path, file, metadata, _must_be_finite(file, snapshot, left_out))
    except StepFileError as error:
        return FileCheck(path, damage=(str(error),))
    return replace(
        found,
        step=snapshot.step,
        rank=rank,
        batch_from=snapshot.batch_from,
        has_batch=bool(snapshot.batch),
        has_loss=snapshot.loss is not None,
        loss=snapshot.loss,
        lr=None if snapshot.skipped else snapshot.lr,
    )


def check_probe_file(path: Path) -> FileCheck:
    """Read a file of batches set aside."""
    try:
        read_probe(path)
        return _read(path, *open_probe_file(path), frozenset())
    except StepFileError as error:
        return FileCheck(path, damage=(str(error),))


def _must_be_finite(file: TensorFile, snapshot: Snapshot, left_out: frozenset[str]) -> frozenset[str]:
    """The tensors, by name in the file, that hold x_t, g_t or a sum of gradients.

    Of low-precision weights with masters x_t is the master; a gradient that the loss scaler skipped was never used.
    """
    sections = file.layout.sections
    names = set()
    for kind in _VECTORS:
        if kind == "grad" and snapshot.skipped:
            continue
        for name, stored in sections.get(kind, {}).items():
            has_master = kind == "param" and name in sections.get("master", {})
            if name not in left_out and not has_master and file.layout.specs[stored].dtype in FLOATING:
                names.add(stored)
    return frozenset(names)


def _read(path: Path, file: TensorFile, metadata: Mapping[str, Any], finite: frozenset[str]) -> FileCheck:
    """What is found in any file; `finite` are the tensors that should be. Raises StepFileError."""
    specs = file.layout.specs
    try:
        sums = stored_checksums(metadata)
    except ValueError as error:
        raise StepFileError(f"{path}: {error}.") from error
    damage = [
        f"{path}: a checksum is stored of {name!r:.80}, which the file does not hold."
        for name in sums
        if name not in specs and name != METADATA
    ]
    if sums.get(METADATA) not in (None, metadata_checksum(metadata)):
        damage.append(
            f"{path}: its metadata are not those that were written (crc32). Copy the file again; if they were edited "
            f'on purpose, remove "{METADATA}" from their "checksum".'
        )
    buffer, not_finite = memoryview(bytearray(BLOCK)), None
    with ExtentReader() as reader:
        for name, spec in sorted(specs.items(), key=lambda item: item[1].begin):
            watched = name in finite and not_finite is None
            if not (name in sums or watched):
                continue
            crc, is_finite = _read_tensor(reader, file, spec, buffer, name in sums, watched)
            if name in sums and crc != sums[name]:
                damage.append(
                    f"{path}: tensor {name}: its bytes have crc32 {crc:08x}, and {sums[name] & 0xFFFFFFFF:08x} was "
                    "recorded. Copy the file again or remove it."
                )
            if watched and not is_finite:
                not_finite = name
    return FileCheck(
        path,
        bytes=file.start + file.layout.size,
        tensors=len(specs),
        compared=sum(name in sums for name in specs),
        damage=tuple(damage),
        not_finite=not_finite,
    )


def _read_tensor(
    reader: ExtentReader, file: TensorFile, spec: Spec, buffer: memoryview, summed: bool, watched: bool
) -> tuple[int, bool]:
    """crc32 of a tensor's bytes (0 unless `summed`), and whether all its numbers are finite (True unless `watched`)."""
    crc, is_finite = 0, True
    for begin in range(spec.begin, spec.end, BLOCK):
        part = buffer[: min(BLOCK, spec.end - begin)]
        reader.range(file.path, file.start + begin, part)
        if summed:
            crc = zlib.crc32(part, crc)
        if watched and is_finite:
            is_finite = _finite(part, spec.dtype)
    return crc, is_finite


def _finite(data: memoryview, dtype: str) -> bool:
    if dtype == "BF16":
        return bool(((np.frombuffer(data, "<u2") & 0x7F80) != 0x7F80).all())
    return bool(np.isfinite(np.frombuffer(data, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])).all())
