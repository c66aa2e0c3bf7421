"""What the command line makes of its values without pydantic is what typer makes of them with it."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.core import TyperCommand

from trajcheck.cli import app
from trajcheck.cli.by_name import NAMES
from trajcheck.cli.values import ValuesAsTheyAre
from trajcheck.errors import UsageError

#: What stands behind an option: words, numbers, an address, nothing, half a letter; and what a default may be.
TEXTS = ["a", "", "ü/ß", "3", "0.5", "-1", "nan", "true", "hf://org/name", "\udcff"]
NUMBERS = [2, 0.5, True]


def parameters(command: str) -> list[Any]:
    made: Any = typer.main.get_command(app)
    one: TyperCommand = made.commands[command]
    with one.make_context(command, [], resilient_parsing=True) as context:
        return [each for each in one.get_params(context) if hasattr(each, "get_runtime_param")]


def what_it_makes(read: Any, value: Any, parameter: Any) -> Any:
    try:
        found = read.coerce(value, param=parameter, ctx=None)
    except (typer.BadParameter, UsageError) as error:
        return type(error), str(error)
    return found, type(found)


@pytest.mark.parametrize("command", NAMES)
def test_the_same_as_typer_makes(command: str) -> None:
    compared = 0
    for each in parameters(command):
        ours = each.get_runtime_param()
        if not isinstance(ours, ValuesAsTheyAre):
            pytest.skip("this typer does not know pydantic")
        typers = ours._of_typer()
        several = each.multiple or each.nargs == -1
        values = [*TEXTS, *([] if ours._parser else NUMBERS)]
        for value in [None, *([[one] for one in values] if several else values), *([[], ["a", "b"]] * several)]:
            found, expected = what_it_makes(ours, value, each), what_it_makes(typers, value, each)
            assert repr(found) == repr(expected), (each.name, value)
            compared += 1
    assert compared > 20
