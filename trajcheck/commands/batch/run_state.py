"""What a batch remembers of a run, in its report's folder: which files and which options the report was made from."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from trajcheck.errors import OutputError, RunError
from trajcheck.files.opening import MOST_NUMBERS, read_json
from trajcheck.files.prints import FilePrints, file_print, hash_file
from trajcheck.files.walking import make_folders
from trajcheck.files.whole_files import write_json
from trajcheck.measuring.options import Options
from trajcheck.objective.common.names import BESIDE, common_objective
from trajcheck.options.shared import NONE
from trajcheck.reports.making.folder import SUMMARY
from trajcheck.runs.formats.recognise import recognise
from trajcheck.runs.logs.log_choice import log_of
from trajcheck.version import __version__

#: Hidden, as it belongs to the batch and not to the report.
STATE = ".batch.json"
FORMAT = 1

#: What the tables of a report are called: a note names no others.
_TABLE = re.compile(r"[a-z_]+\.csv")

#: The key of the checksum of all the rest.
CHECK = "check"

DONE, INCOMPLETE, FAILED = "done", "incomplete", "failed"


@dataclass(frozen=True)
class Fingerprint:
    """What a report is made from: the run's files and those of references, the options, the version of trajcheck."""

    files: str
    options: str
    version: str = __version__


@dataclass(frozen=True)
class RunState:
    """`row` is the run's row of the index; `sources` are the files of the objective's code, with their hashes; `tables`
    those of the report, each with its print and its hash."""

    run: str
    fingerprint: Fingerprint
    row: dict[str, Any]
    sources: dict[str, str] = field(default_factory=dict)
    tables: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.row.get("status") not in (DONE, INCOMPLETE)

    def holds(self, fingerprint: Fingerprint, folder: Path, hashes: FilePrints) -> bool:
        """Whether the report in a folder is still what an analysis would give; `hashes` are deep prints."""
        if self.failed or fingerprint != self.fingerprint:
            return False
        if not (folder / SUMMARY).is_file() or not all(_is_table(folder / name, *t) for name, t in self.tables.items()):
            return False
        return all(_is_source(path, known, hashes) for path, known in self.sources.items())

    def is_of(self, options: Options) -> bool:
        """Whether the objective's files are such as these options name: its own one and modules, or the run's."""
        names = set(self.sources)
        if options.objective == NONE:
            return not names
        if common_objective(options.objective) is not None:
            place = Path(options.data or "").expanduser()
            return bool(names) and all(Path(n).name in BESIDE or Path(n).is_relative_to(place) for n in names)
        file = (options.objective or "").rpartition(":")[0]
        if not file:
            return all(Path(name).parent == Path(self.run) for name in names)
        whole = str(Path(file).expanduser().resolve())
        return whole in names and all(name == whole or name.endswith(".py") for name in names)

    def write(self, folder: Path) -> None:
        """Into the report's folder, which is made if need be. Raises OutputError."""
        try:
            make_folders(folder)
            said = {"format": FORMAT, **asdict(self)}
            write_json(folder / STATE, {**said, CHECK: _hash(said)})
        except OSError as error:
            raise OutputError(f"{folder / STATE}: cannot be written: {error.strerror}.") from error


def read_state(folder: Path) -> RunState | None:
    """The state that lies in a report's folder; None where there is none that can be read."""
    try:
        found = read_json(folder / STATE)
        if found["format"] != FORMAT or not isinstance(found["row"], dict):
            return None
        if found.pop(CHECK) != _hash(found):
            return None
        prints = found["fingerprint"]
        if not all(_TABLE.fullmatch(name) for name in found["tables"]):
            return None
        return RunState(
            str(found["run"]),
            Fingerprint(str(prints["files"]), str(prints["options"]), str(prints["version"])),
            {str(name): value for name, value in found["row"].items()},
            {str(path): str(known) for path, known in found["sources"].items()},
            {str(name): (str(print_), str(known)) for name, (print_, known) in found["tables"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def tables_of(folder: Path, files: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The tables that a report was just written with, each with its print and its hash. Raises OutputError, also for
    one that somebody has taken away meanwhile: a report that lacks it is not held to be whole."""
    try:
        return {name: (file_print(folder / name), hash_file(folder / name)) for name in sorted(files)}
    except (OSError, RunError) as error:
        raise OutputError(f"{folder}: the tables just written cannot be read: {error}") from error


def fingerprint(run: Path, options: Options, *, deep: bool = False) -> Fingerprint:
    """That of a run as it is now: names, sizes and times of its files; `deep`: the hashes of their bytes."""
    return Fingerprint(_hash(input_prints(run, options, deep=deep)), _hash_options(options))


def input_prints(run: Path, options: Options, *, deep: bool = False) -> dict[str, str]:
    """The files that an analysis reads, the run's, its log and those of its references, each with its print."""
    prints = FilePrints(deep)
    files = _run_files(run, prints)
    if (log := log_of(options).of_run(run).file) is not None:
        files |= {log: _print(log, prints)}
    for spec in (*options.refs, *options.roles.values()):
        files |= _reference(spec, prints)
    return files


def _is_table(path: Path, known: str, hashed: str) -> bool:
    """By name, size and time; touched since, by its bytes, which are read where there are as many as there were."""
    with suppress(OSError, RunError):
        found = file_print(path)
        same_size = found.rpartition(":")[0] == known.rpartition(":")[0] and path.stat().st_size <= MOST_NUMBERS
        return found == known or (same_size and hash_file(path) == hashed)
    return False


def _is_source(path: str, known: str, hashes: FilePrints) -> bool:
    with suppress(RunError):
        return hashes.of(path).endswith(known)
    return False


def _run_files(run: Path, prints: FilePrints) -> dict[str, str]:
    """Those of a run as its format names them; none where it cannot be read, which the analysis will say."""
    try:
        stored = recognise(run)
        files = () if stored is None else stored.files()
    except (OSError, RunError):
        return {}
    return {path: _print(path, prints) for path in files}


def _print(file: str, prints: FilePrints) -> str:
    """Name, size, time and mode of a file; deep prints have the hash of its bytes in place of size and time. One that
    cannot be read has the reason."""
    name = os.path.basename(file)
    try:
        found = os.stat(file)
        known = prints.of(file) if prints.deep else f"{name}:{found.st_size}:{found.st_mtime_ns}"
    except (OSError, RunError) as error:
        return f"{name}:{error}"
    return f"{known}:{found.st_mode:o}"


def _reference(spec: str, prints: FilePrints) -> Mapping[str, str]:
    """The files of a reference that is another run or a file; of the run's own points there are no more."""
    for path in (Path(spec), Path(spec.rpartition("@")[0] or spec)):
        if path.is_dir():
            return _run_files(path, prints)
        if path.is_file():
            return {str(path): _print(str(path), prints)}
    return {}


@lru_cache
def _hash_options(options: Options) -> str:
    return _hash(asdict(options))


def _hash(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
