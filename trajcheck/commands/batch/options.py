"""The options of a batch: a TOML file, and what the command line puts in its place.

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

Paths in it are relative to the file.
"""

from __future__ import annotations

import re
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from trajcheck.errors import UsageError
from trajcheck.measuring.options import Options
from trajcheck.metrics.families import choose_families
from trajcheck.scalars.saved import INTERVAL

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Words of the command line for options that are called otherwise in Python.
_ALIASES = {"ref": "refs"}

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Override:
    """Options of the runs whose names match a pattern."""

    match: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class BatchConfig:
    """`timeout` in seconds. See `read_config` and `trajcheck batch --help`."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    workers: int | None = None
    devices: tuple[str, ...] = ()
    runner: str = "local"
    address: str | None = None
    gpus_per_task: float = 0.0
    timeout: float | None = None
    max_runs: int | None = None
    deep: bool = False
    plots: bool | None = None
    interval: float = INTERVAL
    options: Options = field(default_factory=Options)
    overrides: tuple[Override, ...] = ()

    def options_of(self, name: str) -> Options:
        """The options of one run, by its path below the archive. Raises UsageError where they contradict each other."""
        options = self.options
        for override in self.overrides:
            if fnmatchcase(name, override.match):
                options = replace(options, **override.options)
        check_options(options)
        return options

    def check(self) -> None:
        """Raise UsageError for options that make no sense."""
        for name in ("workers", "max_runs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value}: expected a number, 1 or more.")
        if self.interval < 0:
            raise UsageError(f"interval {self.interval:g}: expected seconds, 0 or more.")
        check_options(self.options)
        for override in self.overrides:
            check_options(replace(self.options, **override.options))


def check_options(options: Options) -> None:
    """Raise UsageError for options of an analysis that contradict each other, before any run is opened."""
    options.check(choose_families(options.metrics))
    if options.steps is not None:
        from trajcheck.scalars.rows import (
            parse_steps,  # imports numpy, for which a batch with nothing to do has no time
        )

        parse_steps(options.steps)


def read_config(path: Path) -> BatchConfig:
    """The batch that a TOML file describes. Raises UsageError, naming the file and what in it is wrong."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
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
    if "timeout" in chosen:
        chosen["timeout"] = seconds(chosen["timeout"])
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


def seconds(text: Any) -> float:
    """`90`, `90s`, `15m`, `6h`, `1.5d` in seconds. Raises UsageError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", str(text)) if not isinstance(text, bool) else None
    if not match or not float(match[1]):
        raise UsageError(f"timeout {text!r}: expected a time, as in 90s, 15m or 6h.")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def _override(where: str, table: Mapping[str, Any], folder: Path) -> Override:
    match = table.get("match")
    if not isinstance(match, str):
        raise UsageError(f'{where}, [[runs]]: expected match = "a pattern of paths below the archive".')
    others = {key: value for key, value in table.items() if key != "match"}
    return Override(match, _options(f"{where}, [[runs]] {match!r}", others, folder))


def _options(where: str, table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Options of an analysis, by the names of `Options`, with paths made whole."""
    chosen = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        chosen[_ALIASES.get(name, name)] = value
    words = {name: word for word, name in _ALIASES.items()}
    _known(where, chosen, [words.get(each.name, each.name) for each in fields(Options)], "the options", _ALIASES)
    options = _typed(where, Options, chosen)
    if "refs" in options:
        options["refs"] = tuple(_below(folder, spec) for spec in options["refs"])
    if options.get("objective") not in (None, "run"):
        file, colon, name = options["objective"].rpartition(":")
        options["objective"] = f"{folder / Path(file).expanduser()}{colon}{name}"
    return options


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
    names: typing.Iterable[str],
    what: str,
    aliases: Mapping[str, str] = types.MappingProxyType({}),
) -> None:
    names = list(names)
    for key in table:
        if key not in names and key not in aliases.values():
            raise UsageError(f"{where}: {key!r} is unknown; {what} are {', '.join(names)}.")


def _typed(where: str, kind: type, table: Mapping[str, Any]) -> dict[str, Any]:
    """Values as the dataclass has them: a list for a tuple, one word for a list of one. Raises UsageError."""
    hints = typing.get_type_hints(kind)
    return {key: _value(f"{where}: {key}", hints[key], value) for key, value in table.items()}


def _value(where: str, hint: Any, value: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in kinds:
        if typing.get_origin(kind) is tuple:
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
