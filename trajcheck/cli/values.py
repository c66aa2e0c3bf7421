"""Values of the command line as they are.

typer has every value validated by pydantic, whose import and schemas cost each call 0.1 s, a quarter of what `import
numpy, pandas` costs. What it makes of a text that is to be a text, or is given to a parser of our own, of a number by
default and of nothing at all is known: that is made here. All else is left to typer, with its words for what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def as_they_are(parameters: Sequence[Any]) -> list[Any]:
    """Parameters of typer whose values are read like that. Its versions before 0.27 do not know pydantic."""
    for each in parameters:
        if not isinstance(getattr(each, "get_runtime_param", None), ValuesAsTheyAre | None):
            each.get_runtime_param = ValuesAsTheyAre(each)
    return list(parameters)


class ValuesAsTheyAre:
    """In the place of `get_runtime_param` of a parameter of typer, and of what that gives."""

    def __init__(self, parameter: Any) -> None:
        self._of_typer: Callable[[], Any] = parameter.get_runtime_param
        self._kind = parameter.type_descriptor.annotation
        information = parameter.type_descriptor.parameter_info
        self._parser: Callable[[str], Any] | None = information.parser
        self._bounded = (information.min, information.max) != (None, None)

    def __call__(self) -> ValuesAsTheyAre:
        return self

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        if several and isinstance(value, list | tuple) and all(self._is_known(each, list[str]) for each in value):
            known, values = True, list(value)
        else:
            known, values = not several and self._is_known(value, str), [value]
        if known:
            try:
                read = values if self._parser is None else [self._parser(each) for each in values]
                return read if several else read[0]
            except (ValueError, AssertionError):  # which typer words
                pass
        return self._of_typer().coerce(value, param=param, ctx=ctx)

    def _is_known(self, value: Any, text: Any) -> bool:
        """Whether what a value becomes is known; `text` is the kind of parameters that take texts."""
        if self._parser is not None:
            return type(value) is str
        if type(value) is not str:
            return type(value) is self._kind and self._kind in (int, float, bool) and not self._bounded
        return self._kind == text and _in_unicode(value)


def _in_unicode(text: str) -> bool:
    """Whether it is whole letters: bytes of a call that are none are refused."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
