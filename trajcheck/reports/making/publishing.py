"""From what a command found to its report: the tables as CSV files and as frames, undefined.csv, and summary.json."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from trajcheck.metrics.columns import Column
from trajcheck.reports.making.csv_table import CsvTable, undefined_frame
from trajcheck.reports.making.csv_text import frame_text
from trajcheck.reports.making.folder import SUMMARY, ReportFolder
from trajcheck.version import __version__

#: Version of the definitions that the columns follow.
DEFINITIONS = 1


def publish(
    folder: ReportFolder, tables: Mapping[str, CsvTable], summary: Mapping[str, Any], optional: Iterable[str] = ()
) -> dict[str, pd.DataFrame]:
    """Write the tables, undefined.csv and the summary into the report, and return the frames by their names.

    `optional` are tables that not every such call makes: one that lies there from an earlier call is removed, as it
    does not belong to the others.
    """
    frames = {name: table.frame() for name, table in tables.items()}
    frames["undefined"] = undefined_frame(tables.values())
    texts = {f"{name}.csv": frame_text(frame) for name, frame in frames.items()}
    outdated = {f"{name}.csv" for name in optional} - texts.keys()
    folder.publish({**texts, SUMMARY: json.dumps(summary, indent=2, allow_nan=False) + "\n"}, outdated)
    return frames


def summary_of(
    *,
    about: Mapping[str, Any],
    found: Mapping[str, Any],
    warnings: list[str],
    incomplete: list[str],
    left_out: Mapping[Any, Any],
    empty: Any,
    options: Any,
    replayed: bool,
    computed: Mapping[str, Any],
) -> dict[str, Any]:
    """summary.json. `about` says whose report it is, `found` what was found, the headline first, and `computed` how;
    they are what a command alone has to say. `left_out` are steps with reasons, `empty` names of columns without a
    value; `options` is a dataclass. `replayed`: losses were evaluated, so that the version of torch matters."""
    return {
        "format": 1,
        "definitions": DEFINITIONS,
        **about,
        **found,
        "warnings": warnings,
        "incomplete": incomplete,
        "left_out": {"steps": left_out, "columns": empty},
        "options": asdict(options),
        **computed,
        "versions": versions(replayed),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def steps_left_out(left_out: Mapping[int, str]) -> dict[str, str]:
    """The steps of a run that were left out, with reasons, as JSON has them."""
    return {str(step): reason for step, reason in left_out.items()}


def empty_columns(tables: Iterable[Mapping[str, Column]]) -> list[str]:
    """Names of columns without a single value."""
    every: Sequence[Mapping[str, Column]] = list(tables)
    filled = {name for columns in every for name, each in columns.items() if each.defined.any()}
    return sorted({name for columns in every for name in columns} - filled)


def versions(replayed: bool) -> dict[str, str]:
    """Versions of what computed the numbers; torch only where it was used."""
    packages = ["numpy", "scipy", "pandas", "safetensors", *(["torch"] if replayed else [])]
    return {
        "trajcheck": __version__,
        "python": platform.python_version(),
        **{name: _installed(name) for name in packages},
    }


@cache
def _installed(package: str) -> str:
    """The version of a package: that in the name of the folder of its metadata, which lies beside it. Where there is
    not one such folder, the metadata are read."""
    spec = find_spec(package)
    folders = Path(spec.origin).parents[1].glob(f"{package}-*.dist-info") if spec and spec.origin else ()
    found = [each.name.removeprefix(f"{package}-").removesuffix(".dist-info") for each in folders]
    if len(found) == 1:
        return found[0]
    from importlib.metadata import version  # brings email along, dearer than all else at the end of a small report

    return version(package)
