"""The files of the user's own code that an objective is made of, by the imports that stand in them.

Read from the source, wherever an import stands, and not from what happens to be loaded: the same in every process.
Nothing is executed. Modules that are Python's, installed, or ours do not count.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from trajcheck.files.opening import read_bytes
from trajcheck.files.prints import hash_file


def source_hashes(path: Path) -> dict[str, str]:
    """The hash of the file, and of every module of the user's that it imports, or that these do. What is imported by a
    name that is put together at run time is not seen."""
    found: set[str] = set()
    waiting = [(str(path), "")]
    while waiting:
        file, package = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += [there for name in _imported(file, package) if (there := _locate(name))]
    return {file: hash_file(file) for file in sorted(found)}


def _imported(file: str, package: str) -> Iterator[str]:
    """The names that a file's imports may be of: of `from a import b`, both a and a.b; packages first."""
    try:
        tree = ast.parse(read_bytes(file))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: count + 1]) for count in range(len(parts)))


def _locate(name: str) -> tuple[str, str] | None:
    """The file of one of the user's modules, and the package that its relative imports count from; None for others."""
    spec = None if name.partition(".")[0] == "trajcheck" else _find(name)
    if spec is None or spec.origin is None or not _own(spec.origin):
        return None
    return spec.origin, name if spec.submodule_search_locations is not None else name.rpartition(".")[0]


def _own(file: str) -> bool:
    return file.endswith(".py") and "-packages" not in file and not file.startswith(_installed())


@lru_cache
def _installed() -> tuple[str, ...]:
    return tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def _find(name: str) -> ModuleSpec | None:
    """Where a module is, without importing the packages that it lies in."""
    parent = name.rpartition(".")[0]
    with suppress(ImportError, ValueError, AttributeError, TypeError):
        if not parent:
            return importlib.util.find_spec(name)
        package = _find(parent)
        if package is not None and (package.origin is None or _own(package.origin)):
            return PathFinder.find_spec(name, package.submodule_search_locations)
    return None
