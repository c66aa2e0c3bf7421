"""The commands by their names. A command is imported, and its options are read, when it is called or shown: a call of
one pays nothing for the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from trajcheck.cli.values import as_they_are

#: In the order of --help. Each is the function NAME_command of the file of that name in this folder.
NAMES = ("analyze", "compare", "flow", "batch", "report", "table", "verify", "inspect", "convert", "schedule")


class Commands(Mapping[str, Any]):
    """By name what typer makes of a command's function, made when it is asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in NAMES:
            raise KeyError(name)
        if name not in self._made:
            module = import_module(f"trajcheck.cli.{name}")
            alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
            alone.command(name, cls=OneCommand)(getattr(module, f"{name}_command"))
            self._made[name] = typer.main.get_command(alone)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


class AllCommands(TyperGroup):
    """All commands, none of which is imported yet."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = Commands()  # type: ignore[assignment]

    def get_params(self, ctx: Any) -> list[Any]:
        return as_they_are(super().get_params(ctx))


class OneCommand(TyperCommand):
    """A command whose values are read without pydantic, where that is all the same."""

    def get_params(self, ctx: Any) -> list[Any]:
        return as_they_are(super().get_params(ctx))
