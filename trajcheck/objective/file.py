"""Load `FILE.py:NAME`: the user's own code, which makes the model and its loss."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import itertools
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from trajcheck.errors import ObjectiveError
from trajcheck.objective.file_sources import source_hashes
from trajcheck.objective.modules_beside import beside
from trajcheck.objective.sample import process_generators_untouched, seed_generators

Loss = Callable[[nn.Module, Any], Any]

_EXPECTED = "expected FILE.py:NAME, where NAME() returns (model, loss) and loss(model, batch) a scalar tensor"
_serial = itertools.count()


class LossProgram(NamedTuple):
    """What NAME() returned, and the file it stands in; None for a program that is no Python."""

    path: Path | None
    model: nn.Module
    loss: Loss
    batches: Iterable[Any] | None = None  # the data set
    permutations: Any = None  # the file's PERMUTATIONS, as it stands there
    sources: Mapping[str, str] = {}  # the hash of each file of the user's own code
    weight: Callable[[Any], Any] | None = None  # weight(batch): how much one weighs in the mean over the data set


class Traits(NamedTuple):
    """What of a model asks for care in its evaluation."""

    recurrent: bool
    recurrent_dropout: bool
    writes_weights: bool  # an embedding with max_norm scales its weight in place, which must not reach the caller's


def traits_of(model: nn.Module) -> Traits:
    modules = list(model.modules())
    recurrent = [module for module in modules if isinstance(module, nn.RNNBase)]
    return Traits(
        recurrent=bool(recurrent),
        recurrent_dropout=any(module.dropout > 0 for module in recurrent),
        writes_weights=any(getattr(module, "max_norm", None) is not None for module in modules),
    )


def describe(error: BaseException, path: Path | None) -> str:
    """`ValueError: shapes differ (train.py, line 12)`: the error, and the innermost line of the user's file."""
    words = " ".join(str(error).split())
    text = f"{type(error).__name__}: {words[:500]}".removesuffix(": ")
    if isinstance(error, SyntaxError):
        return text  # says file and line itself
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [frame for frame in frames if path is not None and frame[0] == str(path)] or frames
    return f"{text} ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else text


def load_program(spec: str, device: torch.device) -> LossProgram:
    """Import the file, call NAME(), and check what it returns.

    Errors: ObjectiveError for a spec that cannot be read, a file that is missing or raises, a NAME that is missing,
    raises, or returns anything but (torch.nn.Module, callable). Initial values are drawn from seed 0, and the process's
    random streams, on the CPU and on `device`, left as they were.
    """
    file, _, name = spec.rpartition(":")
    if not file or not name.isidentifier():
        raise ObjectiveError(f"objective {spec!r} cannot be read; {_EXPECTED}")
    try:
        path = Path(file).expanduser().resolve(strict=True)
        there = path.is_file()
    except (FileNotFoundError, NotADirectoryError):
        there, path = False, Path(file).absolute()
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself, no home, a NUL in it
        raise ObjectiveError(f"objective {spec!r}: {file} cannot be opened ({error}); {_EXPECTED}") from None
    if not there:
        raise ObjectiveError(f"objective {spec!r}: there is no file {path}; {_EXPECTED}")
    with process_generators_untouched(device), beside(path, loading=True):
        seed_generators(0, device)
        module = _import(path, spec)
        make = _look_up(module, name, spec)
        try:
            made = make()
        except (Exception, SystemExit) as error:
            raise ObjectiveError(f"objective {spec!r}: {name}() raised {describe(error, path)}; {_EXPECTED}") from error
        sources = source_hashes(path)
    permutations = getattr(module, "PERMUTATIONS", None)
    match made:
        case (nn.Module() as model, loss) if callable(loss):
            return LossProgram(path, model, loss, permutations=permutations, sources=sources)
        case (nn.Module() as model, loss, Iterable() as batches) if callable(loss):
            return LossProgram(path, model, loss, batches, permutations, sources)
        case (nn.Module() as model, loss, Iterable() as batches, weight) if callable(loss) and callable(weight):
            return LossProgram(path, model, loss, batches, permutations, sources, weight)
        case tuple() | list():
            found = f"({', '.join(type(part).__name__ for part in made)})"
        case _:
            found = type(made).__name__
    raise ObjectiveError(
        f"objective {spec!r}: {name}() returned {found}; expected (model, loss) with a torch.nn.Module and a callable"
    )


def _import(path: Path, spec: str) -> ModuleType:
    name = f"trajcheck_objective_{next(_serial)}"
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    module_spec = importlib.util.spec_from_loader(name, loader)
    assert module_spec is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if isinstance(error, SystemExit):
            advice = 'put what the script does when it is run below `if __name__ == "__main__":`'
        else:
            advice = "the file must import in the environment that runs trajcheck"
        raise ObjectiveError(
            f"objective {spec!r}: importing {path} raised {describe(error, path)}; {advice}"
        ) from error
    return module


def _look_up(module: ModuleType, name: str, spec: str) -> Callable[[], Any]:
    make = getattr(module, name, None)
    if callable(make):
        return make
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    functions = [key for key in own if callable(getattr(module, key)) and not key.startswith("_")]
    problem = f"has no {name}" if make is None else f"has a {name} that is a {type(make).__name__}"
    hint = f"it defines {', '.join(functions[:6])}" if functions else "it defines no functions"
    raise ObjectiveError(f"objective {spec!r}: {module.__file__} {problem} ({hint}); {_EXPECTED}")
