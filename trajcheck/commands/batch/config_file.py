"""The TOML file of a batch: its keys are the options that are declared, and the options of analyze.

    [batch]                          # include, exclude, workers, devices, runner, address, gpus_per_task,
                                     # timeout, max_runs, deep, plots, interval (seconds of work that a kill may cost)
    exclude = ["*/debug-*"]
    workers = 2
    timeout = "6h"

    [options]                        # those of analyze, by their names in Python or on the command line
    ref = ["final", "init"]

    [[runs]]                         # for the runs whose path below the archive matches; a later table wins
    match = "gpt2/*"
    objective = "objectives.py:gpt2"
    curvature = 100
    ref_as = {other = ["{group}/seed1", "{group}/seed0"]}

Paths in it are relative to the file; those with parts of the run's own path, {group} and the like, to the archive.
"""

from __future__ import annotations

import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from trajcheck.commands.batch.options import BatchConfig, Override
from trajcheck.commands.batch.roles import has_places
from trajcheck.errors import UsageError
from trajcheck.files.opening import TooLargeError, read_text
from trajcheck.measuring.options import Options
from trajcheck.objective.common.names import common_objective
from trajcheck.options.declared import annotations_of, declarations, is_sequence
from trajcheck.options.shared import NONE
from trajcheck.runs.logs.log_choice import RUN

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Bytes of such a file; ten thousand tables of runs have fewer.
MOST = 1_000_000
#: Parts of a dotted key: what they take in memory and time grows with their square.
PARTS = 32
_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
_DEEP = re.compile(rf"""(?<![\w-]){_PART}(?:[ \t]*\.[ \t]*{_PART}){{{PARTS}}}""")


def read_config(path: Path) -> BatchConfig:
    """The batch that a TOML file describes. Raises UsageError, naming the file and what in it is wrong."""
    try:
        text = read_text(path, MOST)
        if deep := _DEEP.search(text):
            raise ValueError(f"a key of more than {PARTS} parts (line {text.count(chr(10), 0, deep.start()) + 1})")
        table = tomllib.loads(text)
    except TooLargeError as error:
        raise UsageError(f"{path}: not a file of options: {error.strerror}.") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # also: a number of thousands of digits
        raise UsageError(f"{path}: not a TOML file: {error}.") from error
    where = str(path)
    _known(where, table, ("batch", "options", "runs"), "the tables")
    batch, options, runs = table.get("batch", {}), table.get("options", {}), table.get("runs", [])
    if not isinstance(batch, dict) or not isinstance(options, dict):
        raise UsageError(f"{where}: batch and options are tables: write [batch], [options].")
    if not isinstance(runs, list) or not all(isinstance(each, dict) for each in runs):
        raise UsageError(f"{where}: runs is a list of tables: write [[runs]].")
    folder = path.resolve().parent
    own = [each.name for each in fields(BatchConfig) if each.name not in ("options", "overrides")]
    chosen = {key.replace("-", "_"): value for key, value in batch.items()}
    _known(f"{where}, [batch]", chosen, own, "the keys")
    chosen |= {
        each.name: each.option.reads(chosen[each.name])
        for each in declarations(BatchConfig)
        if each.option.reads and each.name in chosen
    }
    config = BatchConfig(
        **_typed(f"{where}, [batch]", BatchConfig, chosen),
        options=replace(Options(), **_options(f"{where}, [options]", options, folder)),
        overrides=tuple(_override(where, each, folder) for each in runs),
    )
    try:
        config.check()
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    return config


def _override(where: str, table: Mapping[str, Any], folder: Path) -> Override:
    match = table.get("match")
    if not isinstance(match, str):
        raise UsageError(f'{where}, [[runs]]: expected match = "a pattern of paths below the archive".')
    others = {key: value for key, value in table.items() if key != "match"}
    return Override(match, _options(f"{where}, [[runs]] {match!r}", others, folder))


def _options(where: str, table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Options of an analysis, by the names of `Options`, with paths made whole."""
    names = {each.word: each.name for each in declarations(Options)}
    chosen = {names.get(word, word): value for key, value in table.items() for word in [key.replace("-", "_")]}
    _known(where, chosen, names, "the options", also=names.values())
    if isinstance(chosen.get("ref_as"), dict):
        chosen["ref_as"] = _roles(f"{where}: ref_as", chosen["ref_as"], folder)
    options = _typed(where, Options, chosen)
    if "refs" in options:
        options["refs"] = tuple(_below(folder, spec) for spec in options["refs"])
    objective = options.get("objective")
    if (common := common_objective(objective)) is not None:
        name, beside = common
        options["objective"] = name if beside is None else f"{name}:{folder / Path(beside).expanduser()}"
    elif objective not in (None, "run", NONE):
        file, colon, name = options["objective"].rpartition(":")
        options["objective"] = f"{folder / Path(file).expanduser()}{colon}{name}"
    for key in ("data", "log"):
        if options.get(key) is not None and not options[key].startswith(RUN):
            options[key] = str(folder / Path(options[key]).expanduser())
    return options


def _roles(where: str, table: Mapping[str, Any], folder: Path) -> list[str]:
    """ROLE=SPEC for each role of a table, and for each of the references that may have it."""
    found = []
    for role, specs in table.items():
        for spec in _value(f"{where}.{role}", Sequence[str], specs):
            found.append(f"{role}={spec if has_places(spec) else _below(folder, spec)}")
    return found


def _below(folder: Path, spec: str) -> str:
    """A reference that names a run or a file beside the TOML file, as a whole path."""
    path = spec.rpartition("@")[0] or spec
    there = folder / path
    try:
        return f"{there}{spec[len(path) :]}" if path and there.exists() else spec
    except (OSError, ValueError):  # no path at all: too long, or with NUL
        return spec


def _known(
    where: str,
    table: Mapping[str, Any],
    names: Iterable[str],
    what: str,
    also: Iterable[str] = (),
) -> None:
    for key in table:
        if key not in (*names, *also):
            raise UsageError(f"{where}: {key!r} is unknown; {what} are {', '.join(names)}.")


def _typed(where: str, kind: type, table: Mapping[str, Any]) -> dict[str, Any]:
    """Values as the dataclass has them: a list for a tuple, one word for a list of one. Raises UsageError."""
    hints = annotations_of(kind)
    return {key: _value(f"{where}: {key}", hints[key][0], value) for key, value in table.items()}


def _value(where: str, hint: Any, value: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in kinds:
        if is_sequence(kind):
            inner = typing.get_args(kind)[0]
            items = value if isinstance(value, list) else [value]
            if all(_is(each, inner) for each in items):
                return tuple(items)
        elif kind is not type(None) and _is(value, kind):
            return kind(value)
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    expected = [words.get(kind) or "a list" for kind in kinds if kind is not type(None)]
    raise UsageError(f"{where} = {value!r}: expected {' or '.join(expected)}.")


def _is(value: Any, kind: Any) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
