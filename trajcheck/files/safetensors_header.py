"""The header of a safetensors file, checked against the file, without touching a tensor.

The file is data from somebody else: every length, offset, dtype and shape is verified before it is believed.
Layout: 8 bytes little-endian header length n, n bytes of JSON {name: {dtype, shape, data_offsets}, "__metadata__":
{str: str}}, then the tensors' bytes, offsets counted from the end of the header.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from trajcheck.errors import StepFileError
from trajcheck.files.extents import ITEM_SIZE, Extents, Spec
from trajcheck.files.opening import NotRegularError, open_regular, opened, size_of
from trajcheck.files.plain_json import DECODER, parse_json
from trajcheck.files.remote.address import is_remote

NOTHING: Mapping[str, str] = {}  # one object, by which equal layouts are known
MAX_HEADER = 100_000_000  # safetensors' own limit
BEGINNING = 1 << 14  # so many bytes are read at once, in which most headers end
_SPACE = " \t\r\n"  # JSON's
REMEDY = "remove it (analyze --skip-bad leaves such steps out)"
MOST_DIMENSIONS, LONGEST = 64, 2**63 - 1  # those of numpy and torch


class Layout(NamedTuple):
    """Where the tensors of a file lie: one object for all files whose headers say the same."""

    specs: Mapping[str, Spec]
    sections: Mapping[str, Mapping[str, str]]  # what stands before the first "/" -> {the rest: whole name}
    size: int
    dtypes: Mapping[str, frozenset[str]]  # those of each section

    def with_specs(self, specs: Mapping[str, Spec]) -> Layout:
        """The same tensors, with other dtypes or shapes."""
        return self._replace(specs=specs, dtypes=_dtypes(specs, self.sections))


class TensorFile(NamedTuple):
    """The parsed header of one file."""

    path: str
    start: int
    layout: Layout
    metadata: Mapping[str, str]

    def extents(self, names: Mapping[str, str]) -> Extents:
        """Tensors as extents, by `names` {shown: in the file}."""
        return Extents(self.path, self.start, self.layout.specs, names)

    def section(self, prefix: str) -> Extents:
        """The tensors `prefix/...`, without their prefix; a tensor called just `prefix` is shown as ''."""
        return self.extents(self.layout.sections.get(prefix, NOTHING))


def read_header(path: str, remedy: str = REMEDY) -> TensorFile:
    """Parse and verify the header of a safetensors file; `remedy` says what to do with one that is damaged.

    Raises StepFileError when the file cannot be read, is truncated, or is not a sound safetensors file.
    """
    try:
        if is_remote(path):
            with opened(path) as file:

                def read_there(start: int, length: int) -> bytes:
                    file.seek(start)
                    return file.read(length)

                return header_of(path, path, read_there, size_of(file), remedy=remedy)
        descriptor = open_regular(path)
        try:
            beginning = os.pread(descriptor, BEGINNING, 0)

            def read(start: int, length: int) -> bytes:
                if start + length <= len(beginning):
                    return beginning[start : start + length]
                return os.pread(descriptor, length, start)

            return header_of(path, path, read, os.fstat(descriptor).st_size, remedy=remedy)
        finally:
            os.close(descriptor)
    except NotRegularError as error:
        raise StepFileError(f"{path}: not a regular file; expected a safetensors file.") from error
    except OSError as error:
        raise StepFileError(f"{path}: cannot be read: {error.strerror}.") from error


def header_of(
    path: str, shown: str, read: Callable[[int, int], bytes], size: int, begin: int = 0, remedy: str = REMEDY
) -> TensorFile:
    """As `read_header`, of `size` bytes that lie in the file `path` from `begin` on and are called `shown`;
    `read(start, length)` gives some of them."""
    prefix = read(0, 8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > MAX_HEADER or 8 + length > size:
        raise StepFileError(
            f"{shown}: not a whole safetensors file: {size:,} bytes, and a header that would need "
            f"{8 + length:,}. The file is truncated or of another format; copy it again or {remedy}."
        )
    try:
        metadata, table = _split(read(8, length))
        layout = _parse_table(table)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StepFileError(f"{shown}: malformed safetensors header ({error}).") from error
    if 8 + length + layout.size != size:
        raise StepFileError(
            f"{shown}: truncated or padded: {size:,} bytes, but its header describes {8 + length + layout.size:,}. "
            f"Copy the file again or {remedy}."
        )
    return TensorFile(path, begin + 8 + length, layout, metadata)


def _split(header: bytes) -> tuple[dict[str, str], str]:
    """The metadata, and the text of the rest, which is the same in every step of a run and parsed only once."""
    text = header.decode("utf-8").strip(_SPACE)
    opening = re.match(r'\{\s*"__metadata__"\s*:\s*', text)
    if opening is None:
        whole = parse_json(text)
        metadata = whole.pop("__metadata__", {})
        table = json.dumps(whole)
    else:
        metadata, stop = DECODER.raw_decode(text, opening.end())
        rest = text[stop:].lstrip(_SPACE)
        if not rest.startswith(",") and rest != "}":
            raise ValueError("__metadata__ is followed by neither a comma nor the end")
        table = "{" + rest.removeprefix(",")
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__ is not a table of strings")
    return metadata, table


@lru_cache(maxsize=256)
def _parse_table(table: str) -> Layout:
    specs: dict[str, Spec] = {}
    sections: dict[str, dict[str, str]] = {}
    for name, entry in parse_json(table).items():
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if dtype not in ITEM_SIZE:
            raise ValueError(f"tensor {name!r:.200} has dtype {dtype!r:.40}; expected one of {', '.join(ITEM_SIZE)}")
        if len(shape) > MOST_DIMENSIONS:
            raise ValueError(f"tensor {name!r:.200} has {len(shape):,} dimensions; expected {MOST_DIMENSIONS} at most")
        if not all(type(number) is int and 0 <= number <= LONGEST for number in (*shape, begin, end)):
            raise ValueError(f"tensor {name!r:.200} has a shape or offsets that are not natural numbers of 63 bits")
        if end - begin != math.prod(shape) * ITEM_SIZE[dtype]:
            raise ValueError(f"tensor {name!r:.200} of shape {list(shape)} and dtype {dtype} has {end - begin} bytes")
        specs[name] = Spec(dtype, shape, begin, end)
        prefix, _, rest = name.partition("/")
        sections.setdefault(prefix, {})[rest] = name
    position = 0
    for spec in sorted(specs.values(), key=lambda spec: (spec.begin, spec.end)):
        if spec.begin != position:
            raise ValueError("tensors overlap or leave holes")
        position = spec.end
    return Layout(specs, sections, position, _dtypes(specs, sections))


def _dtypes(specs: Mapping[str, Spec], sections: Mapping[str, Mapping[str, str]]) -> Mapping[str, frozenset[str]]:
    return {kind: frozenset(specs[name].dtype for name in names.values()) for kind, names in sections.items()}
