"""References by role for the runs of an archive: `other = "{group}/seed1"` is another run for each of them.

{path}      the run's path below the archive      {part1}, {part2}, ...   the parts of that path
{name}      its last part                         {archive}               the archive itself
{group}     the parts before it
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from trajcheck.errors import UsageError
from trajcheck.runs.reference_words import normalised

_PLACE = re.compile(r"\{([^{}]*)\}")


class RolesOfRun(NamedTuple):
    """What the options of one run hold, ROLE=SPEC each, and why some roles have no reference there."""

    ref_as: tuple[str, ...]
    without: dict[str, str]


def path_parts(path: str) -> dict[str, str]:
    """The names that a path below an archive gives its parts."""
    parts = path.split("/")
    numbered = {f"part{number}": part for number, part in enumerate(parts, 1)}
    return {"path": path, "name": parts[-1], "group": "/".join(parts[:-1]) or ".", **numbered}


def has_places(spec: str) -> bool:
    return bool(_PLACE.search(spec))


def roles_of_run(said: Sequence[str], run: Path, name: str, archive: Path) -> RolesOfRun:
    """The roles of one run, which is `name` in the archive. Of a role that was given several times it is the first
    reference that there is and that is not the run itself.

    Raises UsageError for names in {} that this run's path does not have.
    """
    offers: dict[str, list[str]] = {}
    for each in said:
        role, _, spec = each.partition("=")
        offers.setdefault(role, []).append(_filled(spec, name, archive) if has_places(spec) else spec)
    chosen, without = [], {}
    for role, specs in offers.items():
        others = [spec for spec in specs if not _is_run(spec, run)]
        if not others:
            without[role] = f"{role}: is the run itself"
            continue
        chosen.append(f"{role}={next((spec for spec in others if _path(spec).exists()), others[0])}")
    return RolesOfRun(tuple(chosen), without)


def _filled(spec: str, name: str, archive: Path) -> str:
    known: Mapping[str, str] = {**path_parts(name), "archive": str(archive)}

    def value(found: re.Match[str]) -> str:
        if found[1] not in known:
            raise UsageError(
                f"ref_as: {found[0]} in {spec!r} is not known of the run {name}; what is: "
                f"{', '.join(f'{{{each}}}' for each in known)}."
            )
        return known[found[1]]

    return normalised(os.path.join(archive, _PLACE.sub(value, spec)))


def _path(spec: str) -> Path:
    return Path(spec if "@" not in spec or os.path.exists(spec) else spec.rpartition("@")[0])


def _is_run(spec: str, run: Path) -> bool:
    return os.path.realpath(_path(spec)) == os.path.realpath(run)
