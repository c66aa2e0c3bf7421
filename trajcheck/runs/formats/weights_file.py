"""A file of weights alone, given as a reference point: the model's names, bare or under `param/` as in a step file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from trajcheck.files.extents import Extents
from trajcheck.files.plain_json import parse_json
from trajcheck.files.safetensors_header import TensorFile, read_header


class WeightsFile(NamedTuple):
    """`step` is the number that the file gives itself, where it is the file of a step."""

    shapes: Mapping[str, tuple[int, ...]]
    step: int | None
    file: TensorFile
    names: Mapping[str, str]  # in the file, by those of the model

    def parameters(self, names: Iterable[str]) -> Extents:
        """Some of the tensors, by the model's names."""
        return self.file.extents({name: self.names[name] for name in names})


def read_weights(path: str) -> WeightsFile:
    """The header of such a file; float32 masters stand for weights of low precision. Raises StepFileError."""
    file = read_header(path)
    specs, sections = file.layout.specs, file.layout.sections
    names = {name: name for name in specs}
    if sections.get("param"):
        names = {**sections["param"], **sections.get("master", {})}
    try:
        step = parse_json(file.metadata["trajcheck"])["step"]
    except (KeyError, ValueError, TypeError):
        step = None
    shapes = {name: specs[stored].shape for name, stored in names.items()}
    return WeightsFile(shapes, step if isinstance(step, int) else None, file, names)
