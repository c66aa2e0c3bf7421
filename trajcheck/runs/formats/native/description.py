"""run.json: what the Recorder wrote down of a run when it began."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trajcheck.errors import RunError
from trajcheck.files.extents import ITEM_SIZE
from trajcheck.files.opening import NotRegularError, read_text
from trajcheck.files.plain_json import parse_json
from trajcheck.runs.formats.native.group_settings import as_groups
from trajcheck.runs.formats.native.metadata import as_reason
from trajcheck.runs.run_info import Ended, RunInfo
from trajcheck.runs.user_fields import user_fields

DESCRIPTION = "run.json"


def read_run_info(folder: Path) -> RunInfo:
    """What run.json says; a run without one is valid, and then nothing is known of its optimizer."""
    path = folder / DESCRIPTION
    try:
        text = read_text(path)
    except FileNotFoundError:
        return RunInfo()
    except NotRegularError as error:
        raise RunError(f"{path}: not a regular file; expected a run description in format 1.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {error}.") from error
    try:
        return parse_run_info(parse_json(text))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, IndexError) as error:
        raise RunError(f"{path}: not a run description in format 1 ({error!r}).") from error


def parse_run_info(text: Mapping[str, Any]) -> RunInfo:
    """From the JSON object. Raises ValueError, TypeError, KeyError or AttributeError when it is malformed."""
    if text.get("format") != 1:
        raise ValueError(f"format {text.get('format')!r}; this version of trajcheck reads format 1")
    optimizer = text.get("optimizer") or {}
    groups = as_groups(optimizer.get("groups") or [])
    trainable, frozen, unrecorded, group_of, dtypes = {}, {}, [], {}, {}
    for parameter in text.get("parameters", []):
        name, shape = str(parameter["name"]), tuple(_natural(length) for length in parameter["shape"])
        if parameter.get("dtype") in ITEM_SIZE:
            dtypes[name] = str(parameter["dtype"])
        if not parameter.get("recorded", True):
            unrecorded.append(name)
        elif parameter.get("trainable", True):
            trainable[name] = shape
            group = parameter.get("group")
            if group is not None:
                group_of[name] = _natural(group)
        else:
            frozen[name] = shape
    return RunInfo(
        id=None if text.get("id") is None else str(text["id"]),
        parameters=trainable,
        frozen=frozen,
        unrecorded=tuple(unrecorded),
        not_stored=tuple(map(as_reason, text.get("not_stored") or ())),
        tied={str(alias): str(name) for alias, name in (text.get("tied") or {}).items()},
        dtypes=dtypes,
        optimizer=None if optimizer.get("name") is None else str(optimizer["name"]),
        groups=groups,
        group_of=group_of,
        ended=_ended(text.get("ended")),
        thinned=str(text.get("schedule", "")).startswith("Budget"),
        versions=dict(text.get("versions") or {}),
        user=user_fields(text.get("user")),
    )


def _ended(value: Any) -> Ended | None:
    return None if value is None else Ended(_natural(value["step"]), as_reason(value["reason"]))


def _natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} in a shape")
    return value
