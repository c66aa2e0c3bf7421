"""What the metadata of a file of the native format say: the JSON under the header's key `trajcheck`, entry by entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from trajcheck.errors import StepFileError
from trajcheck.files.complex_pairs import with_complex
from trajcheck.files.plain_json import parse_json
from trajcheck.files.safetensors_header import TensorFile
from trajcheck.readable import one_line
from trajcheck.runs.snapshot import MicroGradients

#: The largest number of a step, which tables hold as float64 too, and of the micro-batches of one.
LARGEST, MOST_MICRO_BATCHES = 2**53, 2**20
#: So many characters of a reason are shown.
LONGEST_REASON = 500


def read_metadata(file: TensorFile, least: str) -> dict[str, Any]:
    """The JSON object under the key `trajcheck`. Raises StepFileError."""
    text = file.metadata.get("trajcheck")
    if text is None:
        raise StepFileError(
            f"{file.path}: no metadata under the key 'trajcheck'; expected at least {least} as JSON in the safetensors "
            "header."
        )
    try:
        metadata = parse_json(text)
    except ValueError as error:
        raise StepFileError(f"{file.path}: its metadata is not JSON ({error}).") from error
    if not isinstance(metadata, dict) or metadata.get("format") != 1:
        found = metadata.get("format") if isinstance(metadata, dict) else metadata
        raise StepFileError(f"{file.path}: run format {found!r:.60}; this version of trajcheck reads format 1.")
    return metadata


def described(file: TensorFile, least: str) -> tuple[TensorFile, dict[str, Any]]:
    """A file as its metadata describe its tensors, and these metadata as they stand there. Raises StepFileError."""
    metadata = read_metadata(file, least)
    try:
        return with_complex(file, metadata), metadata
    except ValueError as error:
        raise StepFileError(f"{file.path}: {error}.") from error


def entry(metadata: Mapping[str, Any], key: str, convert: Callable[[Any], Any]) -> Any:
    value = metadata.get(key)
    if value is None:
        return None
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"metadata {key!r} is {value!r:.60}, which is not what format 1 expects there") from None


def as_natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise ValueError
    return value


def as_group(value: Any) -> int | None:
    """The number of a parameter group; None: of none."""
    return None if value is None else as_natural(value)


def as_micro_batches(value: Any) -> int:
    if as_natural(value) > MOST_MICRO_BATCHES:
        raise ValueError
    return int(value)


def as_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    if not math.isfinite(value):
        raise ValueError
    return float(value)


def as_loss(value: Any) -> float | None:
    """A loss that was not finite is as good as none."""
    return None if isinstance(value, float) and not math.isfinite(value) else as_number(value)


def as_factor(value: Any) -> float:
    if as_number(value) < 0:
        raise ValueError
    return float(value)


def as_table(convert: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    """Of an object with values that `convert` takes."""

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError
        return {key: convert(item) for key, item in value.items()}

    return read


def as_reason(value: Any) -> str:
    """Words for a report: text of a bounded length, without control characters."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return one_line(value, LONGEST_REASON)


def as_naturals(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError
    return tuple(map(as_natural, value))


def as_weights(value: Any) -> tuple[float | None, ...]:
    """Numbers, and null for those that are not known."""
    if not isinstance(value, list):
        raise ValueError
    return tuple(None if weight is None else as_number(weight) for weight in value)


def as_micro_gradients(value: Any) -> MicroGradients:
    """Three lists of one length, the squares not below 0."""
    if not isinstance(value, dict):
        raise ValueError
    squares, dots, units = (as_numbers(value.get(key)) for key in ("squares", "dots", "units"))
    if not len(squares) == len(dots) == len(units) or min(squares, default=0.0) < 0:
        raise ValueError
    return MicroGradients(squares, dots, units)


def as_places(value: Any) -> dict[str, int]:
    """In which step's file each tensor lies: a step for all, or an object, in which "" stands for all others."""
    return as_table(as_natural)(value) if isinstance(value, dict) else {"": as_natural(value)}


def as_modes(value: Any) -> dict[str, str]:
    """{module: "train" or "eval"}."""
    if not isinstance(value, dict) or not all(mode in ("train", "eval") for mode in value.values()):
        raise ValueError
    return dict(value)


def as_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def as_numbers(value: Any) -> tuple[float, ...]:
    return tuple(map(as_number, value)) if isinstance(value, list) else (as_number(value),)
