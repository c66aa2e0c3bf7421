"""complex128 in a safetensors file, which has no code for it: pairs of F64, [..., 2], listed among the metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trajcheck.files.extents import PAIRS, Spec
from trajcheck.files.safetensors_header import TensorFile

#: Among the metadata of a file, the list of these tensors.
COMPLEX = "complex"


def with_complex(file: TensorFile, metadata: Mapping[str, Any]) -> TensorFile:
    """The file with its pairs shown as complex tensors. Raises ValueError where what is listed are no pairs."""
    listed = metadata.get(COMPLEX)
    if listed is None:
        return file
    if not isinstance(listed, list):
        raise ValueError(f"metadata {COMPLEX!r} is {listed!r:.60}; expected a list of tensors")
    specs = dict(file.layout.specs)
    for name in listed:
        spec = specs.get(name) if isinstance(name, str) else None
        if spec is None or spec.dtype != "F64" or spec.shape[-1:] != (2,):
            found = "no tensor" if spec is None else f"{spec.dtype} of shape {list(spec.shape)}"
            raise ValueError(f"metadata {COMPLEX!r} lists {name!r:.80}, which is {found}; expected F64 [..., 2]")
        specs[name] = Spec(PAIRS, spec.shape[:-1], spec.begin, spec.end)
    return file._replace(layout=file.layout.with_specs(specs))
