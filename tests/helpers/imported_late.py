"""Libraries whose import is long, imported by the first test that uses them, and not by every process that collects."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Lazily:
    """A module that is imported when something of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest asks all that it collects whether it is a fixture or a test
            raise AttributeError(name)
        return getattr(import_module(self._name), name)
