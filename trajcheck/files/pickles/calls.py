"""What a call in a pickle makes: plain containers, tensors and numbers of numpy by an allow-list; an inert record of
anything else. No class or function of anybody is looked up, imported or called.

What would run or open something where the file is unpickled has no place in an honest file, and such a one is refused:
harmless here, it is dangerous elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from trajcheck.files.pickles.budget import Budget, PickleError
from trajcheck.files.pickles.inert import Global, Inert
from trajcheck.files.pickles.numpy_values import NumpyArray, NumpyDtype, array, dtype, pending_array, scalar
from trajcheck.files.pickles.tensors import Storage, StoredTensor, parameter, tensor, tensor_of_bytes

Key = Callable[[Any], Hashable]

LONGEST_NAME = 500
#: Names of Python 2.
_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "UserDict": "collections"}
#: First parts of modules of which a name in a pickle is there to be run, and builtins.
_HARMFUL = frozenset(
    {
        *("os", "posix", "nt", "subprocess", "sys", "runpy", "importlib", "imp", "pkgutil", "socket", "shutil", "pty"),
        *("ctypes", "_ctypes", "webbrowser", "pickle", "_pickle", "codeop", "timeit", "pdb", "bdb", "cProfile"),
        *("asyncio", "urllib", "http", "ftplib", "smtplib", "requests", "pip"),
    }
)
_HARMFUL_BUILTINS = frozenset(
    {"eval", "exec", "execfile", "compile", "open", "file", "__import__", "input", "breakpoint"}
)


def named(module: Any, name: Any) -> Global:
    """The record of a class or function. Raises PickleError."""
    if not (isinstance(module, str) and isinstance(name, str) and len(module) + len(name) <= LONGEST_NAME):
        raise PickleError("names a class by what is no name")
    module = _MODULES.get(module, module)
    first = module.partition(".")[0]
    if first in _HARMFUL or (first == "builtins" and name in _HARMFUL_BUILTINS):
        raise PickleError(
            f"names {module}.{name}, which would run or open something where the file is unpickled: the file was made "
            "to do harm. Nothing of it was run; do not load it elsewhere"
        )
    return Global(module, name)


def call(of: Any, arguments: Any, keywords: Any, budget: Budget, key: Key) -> Any:
    """What `of(*arguments, **keywords)` makes. Raises PickleError."""
    if not isinstance(arguments, tuple) or not (keywords is None or isinstance(keywords, dict)):
        raise PickleError("calls something with what are no arguments")
    if not isinstance(of, (Global, Inert)):
        raise PickleError(f"calls a {type(of).__name__}")
    if isinstance(of, Global) and of.dotted == "copyreg.__newobj__" and arguments:
        return call(arguments[0], arguments[1:], keywords, budget, key)
    name = of.dotted if isinstance(of, Global) else f"{of.of:.200}(...)"
    maker = _MAKERS.get(name)
    if maker is not None and not keywords:
        return maker(arguments, budget, key)
    made = Inert(name, arguments)
    if keywords:
        budget.spend(120 * len(keywords))
        made.entries.extend(keywords.items())
    return made


def build(made: Any, state: Any, budget: Budget) -> Any:
    """An object whose attributes a pickle sets. Raises PickleError."""
    if isinstance(made, Inert):
        made.state = state
    elif isinstance(made, NumpyDtype):
        made.set(state)
    elif isinstance(made, NumpyArray):
        made.set(state, budget)
    elif not isinstance(made, (dict, list, set, StoredTensor, Storage)):  # an OrderedDict's, a tensor's attributes
        raise PickleError(f"sets attributes of a {type(made).__name__}")
    return made


def _contents(arguments: tuple[Any, ...], budget: Budget, size: int = 16) -> list[Any]:
    """What a container is made of, counted."""
    if len(arguments) > 1 or (arguments and not isinstance(arguments[0], (list, tuple, set, frozenset, dict))):
        raise PickleError("makes a container of what is none")
    found = arguments[0] if arguments else ()
    budget.spend(size * len(found))
    return list(found)


def _table(arguments: tuple[Any, ...], budget: Budget, key: Key) -> dict[Any, Any]:
    if arguments and isinstance(arguments[0], dict):
        budget.spend(120 * len(arguments[0]))
        return dict(arguments[0])
    pairs = _contents(arguments, budget, 120)
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise PickleError("makes a table of what are no pairs")
    return {key(name): value for name, value in pairs}


def _default_table(arguments: tuple[Any, ...], budget: Budget, key: Key) -> dict[Any, Any]:
    return _table(arguments[1:], budget, key)


def _set(arguments: tuple[Any, ...], budget: Budget, key: Key) -> set[Any]:
    return set(map(key, _contents(arguments, budget, 120)))


def _frozen(arguments: tuple[Any, ...], budget: Budget, key: Key) -> frozenset[Any]:
    return frozenset(_set(arguments, budget, key))


def _list(arguments: tuple[Any, ...], budget: Budget, _: Key) -> list[Any]:
    return _contents(arguments[:1], budget)


def _tuple(arguments: tuple[Any, ...], budget: Budget, _: Key) -> tuple[Any, ...]:
    return tuple(_contents(arguments, budget))


def _text(arguments: tuple[Any, ...], budget: Budget, _: Key) -> str:
    """A device, a layout: its words."""
    if len(arguments) > 2 or not all(isinstance(each, (str, int)) for each in arguments):
        raise PickleError("makes a device of what is none")
    budget.spend(sum(len(each) for each in arguments if isinstance(each, str)))
    return ":".join(map(str, arguments))


def _encoded(arguments: tuple[Any, ...], budget: Budget, _: Key) -> bytes:
    text, encoding = arguments if len(arguments) == 2 else (*arguments, "latin1")
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"):
        raise PickleError("makes bytes of what is no text, or in an encoding that is not expected")
    budget.spend(3 * len(text))
    return text.encode(encoding)


def _bytes(arguments: tuple[Any, ...], budget: Budget, _: Key) -> bytes:
    if not arguments:
        return b""
    if isinstance(arguments[0], str):
        return _encoded(arguments, budget, _)
    if len(arguments) != 1 or not isinstance(arguments[0], bytes):
        raise PickleError("makes bytes of what are none")
    return arguments[0]


def _complex(arguments: tuple[Any, ...], *_: object) -> complex:
    if len(arguments) > 2 or not all(type(each) in (int, float) for each in arguments):
        raise PickleError("makes a complex number of what is none")
    return complex(*arguments)


def _reconstructed(arguments: tuple[Any, ...], budget: Budget, key: Key) -> Any:
    """copyreg's own way, of protocols 0 and 1: (class, the plain class that it is of, a value of that)."""
    if len(arguments) != 3 or not isinstance(arguments[0], Global):
        raise PickleError("makes an object of what is no class")
    made = Inert(arguments[0].dotted)
    if isinstance(arguments[2], dict):
        budget.spend(120 * len(arguments[2]))
        made.entries.extend(arguments[2].items())
    elif isinstance(arguments[2], list):
        made.items.extend(_contents(arguments[2:], budget))
    return made


def _of_type(arguments: tuple[Any, ...], budget: Budget, key: Key) -> Any:
    """A tensor of a class of its own, or with attributes: (function, class, its arguments, attributes)."""
    if len(arguments) < 3 or not all(isinstance(each, Global) for each in arguments[:2]):
        raise PickleError("makes a tensor of what is no class of tensors")
    plain = call(arguments[0], arguments[2], None, budget, key)
    if isinstance(plain, StoredTensor):
        return plain
    return Inert(arguments[1].dotted, (plain, *arguments[3:]))


Maker = Callable[[tuple[Any, ...], Budget, Key], Any]
_MAKERS: dict[str, Maker] = {
    "collections.OrderedDict": _table,
    "collections.Counter": _table,
    "collections.defaultdict": _default_table,
    "collections.deque": _list,
    "builtins.dict": _table,
    "builtins.set": _set,
    "builtins.frozenset": _frozen,
    "builtins.list": _list,
    "builtins.tuple": _tuple,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.complex": _complex,
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _reconstructed,
    "torch.Size": _tuple,
    "torch.device": _text,
    "torch.serialization._get_layout": _text,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_tensor": lambda given, *_: tensor(given),
    "torch._utils._rebuild_tensor_v2": lambda given, *_: tensor(given),
    "torch._utils._rebuild_tensor_v3": lambda given, *_: tensor_of_bytes(given),
    "torch._utils._rebuild_parameter": lambda given, *_: parameter(given),
    "torch._utils._rebuild_parameter_with_state": lambda given, *_: parameter(given),
    "numpy.dtype": lambda given, *_: dtype(given),
    **{
        f"numpy.{core}.multiarray.{name}": maker
        for core in ("core", "_core")
        for name, maker in {
            "scalar": lambda given, budget, _: scalar(given),
            "_reconstruct": lambda given, budget, _: pending_array(given),
        }.items()
    },
    **{f"numpy.{core}.numeric._frombuffer": lambda given, budget, _: array(given) for core in ("core", "_core")},
}
