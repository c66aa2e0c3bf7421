"""Batches set aside with a run: probe-000.safetensors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trajcheck.errors import RunError, StepFileError
from trajcheck.files.safetensors_header import TensorFile, read_header
from trajcheck.runs.batch_tree import length_of_tuple
from trajcheck.runs.formats.native.metadata import as_natural, described, entry
from trajcheck.runs.snapshot import Probe

PROBE_FILE = re.compile(r"probe-(\d+)\.safetensors")


def probe_files(folder: Path) -> list[Path]:
    """The files of batches set aside with a run, in the order of their numbers."""
    found: dict[int, Path] = {}
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise RunError(f"{folder}: cannot be read: {error.strerror}.") from error
    for name in names:
        if match := PROBE_FILE.fullmatch(name):
            number, path = int(match[1]), folder / name
            if number in found:
                raise RunError(f"{folder}: {path.name} and {found[number].name} are both probe {number}.")
            if not path.is_file():
                raise RunError(f"{path}: not a regular file; a probe is one safetensors file.")
            found[number] = path
    return [found[number] for number in sorted(found)]


def open_probe_file(path: Path) -> tuple[TensorFile, dict[str, Any]]:
    """The header of a probe file and what its metadata say, as it stands there. Raises StepFileError."""
    file = read_header(str(path), "store the batches again, or remove it")
    return described(file, '{"format": 1, "batches": N}')


def read_probe(path: Path) -> Probe:
    """One probe file's header. Raises StepFileError, naming the file and the tensor."""
    file, metadata = open_probe_file(path)
    try:
        return _probe(file, metadata)
    except (ValueError, TypeError, StepFileError) as error:
        raise StepFileError(f"{path}: {str(error).removesuffix('.')}.") from error


def _probe(file: TensorFile, metadata: Mapping[str, Any]) -> Probe:
    count = entry(metadata, "batches", as_natural)
    if not count:
        raise ValueError(f"metadata 'batches' is {metadata.get('batches')!r}; expected how many batches the file holds")
    foreign = [f"{prefix}/..." for prefix in file.layout.sections if prefix != "batch"]
    if foreign:
        raise ValueError(f"a probe file holds tensors batch/<i>/... alone, but this one has {foreign[0]}")
    batch, tree = file.section("batch"), metadata.get("batch_tree")
    held = set()
    for name in batch:
        index = name.partition("/")[0]
        if not (index.isascii() and index.isdigit()) or str(int(index)) != index or int(index) >= count:
            raise ValueError(f"tensor batch/{name} is of none of the {count} batches that metadata 'batches' counts")
        held.add(int(index))
    if tree is None and len(held) < count:
        absent = next(i for i in range(count) if i not in held)
        raise ValueError(f"metadata 'batches' is {count}, but there is no tensor batch/{absent} or batch/{absent}/...")
    if length_of_tuple(batch, tree) != count:
        raise ValueError(f"batch_tree does not describe a tuple of {count} batches, which metadata 'batches' counts")
    return Probe(file.path, batch, tree, count)
