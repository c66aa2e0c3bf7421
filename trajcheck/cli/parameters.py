"""From declared options to those of the command line."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from trajcheck.errors import UsageError
from trajcheck.files.remote.address import as_path, is_remote
from trajcheck.options.declared import Declaration, declarations


def named_path(text: str) -> Path:
    """The path of this machine that an option or argument names. Raises UsageError for an address, and for none: it
    would be the working folder."""
    if is_remote(text):
        raise UsageError(
            f"{text}: expected a folder or file of this machine; addresses are read, as runs, and no more."
        )
    return archive_path(text)


def archive_path(text: str) -> Path:
    """The path or address of a run. Raises UsageError for none."""
    if not text:
        raise UsageError("a folder or file was named '': give its name, or . for the working folder.")
    return as_path(text)


#: The argument of a command about one run.
RecordedRun = Annotated[
    Path, typer.Argument(metavar="RUN", parser=archive_path, help="Folder of a recorded run; it is only read.")
]

#: The argument that stands for the declared options.
SAID = "said"


def with_options(declared: type, *, in_place: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a function of the command line the options of a dataclass in the place of its argument `said`.

    It is given what was said, by the names of the fields: what to make the dataclass of. `in_place`: what takes the
    place of values from elsewhere, so that an option that nobody gave is None, False or an empty tuple.
    """
    found = declarations(declared)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(function, include_extras=True)
        parameters: list[inspect.Parameter] = []
        for own in inspect.signature(function).parameters.values():
            if own.name == SAID:
                parameters += [_parameter(each, in_place) for each in _in_order(found)]
            else:
                parameters.append(own.replace(annotation=hints[own.name], kind=inspect.Parameter.KEYWORD_ONLY))

        @wraps(function)
        def command(**values: Any) -> None:
            given = {each.name: _read(each, values.pop(each.name)) for each in found}
            said = given if in_place else {name: value for name, value in given.items() if value != ()}
            function(**values, **{SAID: said})

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return decorate


def _in_order(found: Sequence[Declaration]) -> list[Declaration]:
    """As --help shows them: as they are declared, but for those that say after which they come."""

    def with_followers(each: Declaration) -> Iterator[Declaration]:
        yield each
        for other in found:
            if other.option.after == each.name:
                yield from with_followers(other)

    return [one for each in found if not each.option.after for one in with_followers(each)]


def _parameter(declaration: Declaration, in_place: bool) -> inspect.Parameter:
    """What typer reads: `list[str] | None` for a sequence, text for what is made of a text."""
    option = declaration.option
    kind, default = declaration.type, inspect.Parameter.empty if declaration.default is MISSING else declaration.default
    if option.reads:
        kind, default = str | None, None
    elif declaration.several:
        kind, default = list[str] | None, None
    elif Path in typing.get_args(kind):
        kind = Path | None
    elif in_place and kind is not bool:
        kind, default = kind | None, None
    parser = named_path if kind == Path | None else None
    info = typer.Option(declaration.flag, metavar=option.metavar, help=option.help, parser=parser)
    return inspect.Parameter(
        declaration.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )


def _read(declaration: Declaration, value: Any) -> Any:
    """The value of a field; an empty tuple, or None, where nothing was said."""
    if value is None or value == []:
        return () if declaration.several else None
    if declaration.option.reads:
        return declaration.option.reads(value)
    if declaration.option.commas:
        return tuple(name.strip() for each in value for name in each.split(","))
    return tuple(value) if declaration.several else value
