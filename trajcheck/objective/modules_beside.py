"""Modules that lie beside an objective's file: they are the user's code's to import, and nobody else's.

A library that imports something late, as torch does sympy, must not be given a file of that name because the folder of
an objective has one. So what is installed is never replaced; and once the objective is loaded, only code of that folder
is served, by whom the import is made.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType

#: Files whose frames stand between an import and who made it.
_IMPORTING = ("<frozen importlib", os.path.join("importlib", "__init__.py"), os.path.join("importlib", "util.py"))


@contextmanager
def beside(path: Path | None, *, loading: bool = False) -> Iterator[None]:
    """While the context lasts, modules in the folder of `path` can be imported, and no bytecode is left there.
    `loading`: by anybody, as by a library that makes a model of a name."""
    if path is None:
        yield
        return
    finder, bytecode = _Beside(str(path.parent), loading), sys.dont_write_bytecode
    sys.meta_path.insert(0, finder)
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = bytecode
        sys.meta_path[:] = [each for each in sys.meta_path if each is not finder]


class _Beside:
    """Finds modules in one folder that are nowhere else."""

    def __init__(self, folder: str, loading: bool) -> None:
        self._folder, self._loading = folder, loading

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or name in sys.stdlib_module_names:
            return None
        if not (self._loading or self._is_own(_importer())):
            return None
        own = PathFinder.find_spec(name, [self._folder])
        if own is None or self._is_installed(name):
            return None
        return own

    def _is_own(self, file: str) -> bool:
        return file.startswith(self._folder.rstrip(os.sep) + os.sep) and "-packages" not in file

    def _is_installed(self, name: str) -> bool:
        """A folder without code of its own, a namespace, counts for nothing."""
        others = [each for each in sys.meta_path if not isinstance(each, _Beside) and hasattr(each, "find_spec")]
        found = (each.find_spec(name, None) for each in others)
        return any(spec is not None and spec.origin is not None for spec in found)


def _importer() -> str:
    """The file whose code makes the import that a finder is asked for."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and any(each in frame.f_code.co_filename for each in _IMPORTING):
        frame = frame.f_back
    return frame.f_code.co_filename if frame is not None else ""
