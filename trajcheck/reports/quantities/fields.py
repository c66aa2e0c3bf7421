"""What runs may have in common, by name: what the training said of itself (`user.<field>`), facts, parts of a path."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from trajcheck.errors import UsageError
from trajcheck.readable import one_line
from trajcheck.reports.reading.report import SavedReport
from trajcheck.runs.user_fields import Plain, user_fields

#: Of summary.json's account of the run.
FACTS = ("optimizer", "parameters", "tensors", "stride", "recorded_steps", "first_step", "last_step", "id")

Fields = Mapping[str, Plain]


def fields_of(reports: Sequence[SavedReport]) -> list[dict[str, Plain]]:
    """The fields of some runs. `path` is a run's path below the folder in which all of them lie, `name` its last part,
    `group` the parts before it, `part1`, `part2`, ... each of them."""
    paths = [str(report.summary["run"].get("path", "")) for report in reports]
    found = []
    for report, path in zip(reports, below_common(paths), strict=True):
        run: Mapping[str, Any] = report.summary["run"]
        fields: dict[str, Plain] = {f"user.{name}": value for name, value in user_fields(run.get("user")).items()}
        facts = {name: run[name] for name in FACTS if isinstance(run.get(name), (str, int))}
        found.append(
            fields | {name: one_line(v) if isinstance(v, str) else v for name, v in facts.items()} | parts(path)
        )
    return found


def below_common(paths: Sequence[str]) -> list[str]:
    """Paths below the folder that they have in common; with its name, where one lies in that folder itself."""
    whole = [os.path.abspath(path) for path in paths]
    common = os.path.commonpath([os.path.dirname(path) for path in whole])
    if any(os.path.dirname(path) == common for path in whole):
        common = os.path.dirname(common)
    return [PurePath(os.path.relpath(path, common)).as_posix() for path in whole]


def parts(path: str) -> dict[str, Plain]:
    """The names of the parts of a path below a folder."""
    names = [one_line(part) for part in path.split("/")]
    numbered = {f"part{number}": part for number, part in enumerate(names, 1)}
    return {"path": "/".join(names), "name": names[-1], "group": "/".join(names[:-1]) or ".", **numbered}


def chosen(fields: Sequence[Fields], names: Sequence[str]) -> list[tuple[Plain | None, ...]]:
    """The values of some fields of each run, None where a run has no such field. Raises UsageError for a name that no
    run has."""
    known = list(dict.fromkeys(name for each in fields for name in each))
    for name in names:
        if name not in known:
            raise UsageError(f"{name!r}: is no field of these runs; they have {', '.join(known)}.")
    return [tuple(each.get(name) for name in names) for each in fields]
