"""Functions for Python whose arguments are a dataclass of options, whose fields give signature, help and types."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from textwrap import fill
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from trajcheck.options.declared import Option, annotations_of

P = ParamSpec("P")
A = TypeVar("A")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

#: The annotation of a field that holds all further positional arguments.
REST = object()

#: Of the lines of a docstring.
WIDTH = 120


class TakesMore(Protocol[P, R_co]):
    """What type checkers are to know of a function with further positional arguments, runs: with two of them, that its
    options are P; with more, no more than that there are options."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(
        self, first: str | Path, second: str | Path, third: str | Path, /, *more: str | Path, **options: Any
    ) -> R_co: ...


def takes(arguments: Callable[P, A]) -> Callable[[Callable[[A], R]], Callable[P, R]]:
    """Make a function of a dataclass, its `arguments`, one of these arguments themselves.

    Its docstring gets an Args section, before its Raises section: a field's words are those of its option, or a text
    beside its type.
    """
    fields = _fields(cast(type, arguments))
    parameters = [each.parameter for each in fields]

    def decorate(function: Callable[[A], R]) -> Callable[P, R]:
        signature = inspect.Signature(parameters, return_annotation=function.__annotations__.get("return"))

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{function.__name__}(): {error}") from None
            return function(cast(Any, arguments)(**bound.arguments))

        call.__signature__ = signature  # type: ignore[attr-defined]
        call.__doc__ = _with_arguments(function.__doc__ or "", fields)
        return call

    return decorate


def takes_more(arguments: Callable[P, A]) -> Callable[[Callable[[A], R]], TakesMore[P, R]]:
    """The same of a function one of whose fields is REST."""
    return cast(Any, takes(arguments))


class _Field(typing.NamedTuple):
    parameter: inspect.Parameter
    words: str


def _fields(kind: type) -> list[_Field]:
    fields, found = annotations_of(kind), []
    for parameter in inspect.signature(kind).parameters.values():
        plain, notes = fields[parameter.name]
        words = next(
            (
                each.python or each.help if isinstance(each, Option) else each
                for each in notes
                if isinstance(each, (Option, str))
            ),
            "",
        )
        annotated = parameter.replace(annotation=plain)
        if REST in notes:
            [item] = typing.get_args(plain)
            annotated = inspect.Parameter(parameter.name, inspect.Parameter.VAR_POSITIONAL, annotation=item)
        found.append(_Field(annotated, words))
    return sorted(found, key=lambda each: each.parameter.kind)


def _with_arguments(text: str, fields: list[_Field]) -> str:
    lines = [
        fill(f"{each.parameter.name}: {each.words}", WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 12)
        for each in fields
        if each.words
    ]
    before, raises, after = text.partition("    Raises:")
    return "\n".join([f"{before}    Args:", *lines, "", f"{raises}{after}"]) if raises else text
