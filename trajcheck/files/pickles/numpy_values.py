"""Numbers and arrays of numpy in a pickle, as optimizer states, generators and logs hold them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from trajcheck.files.pickles.budget import Budget, PickleError
from trajcheck.files.pickles.inert import Global, Inert

if TYPE_CHECKING:
    import numpy as np

_CODES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "c8", "c16"})


class NumpyDtype:
    """An element type by numpy's code, without its byte order; `plain` is whether it is that of a number."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "<"

    def set(self, state: Any) -> None:
        """(version, byte order, of what it is an array, names, fields, ...)."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise PickleError("has an element type of numpy that is none")
        self.order = "<" if state[1] == "=" else state[1]
        if any(part is not None for part in state[2:5]):
            self.code = "V"

    @property
    def plain(self) -> np.dtype | None:
        import numpy as np  # here, so that formats are recognised without it

        return np.dtype(self.order + self.code) if self.code in _CODES else None


class NumpyArray:
    """An array; `values` is None of one whose elements are no numbers."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: np.ndarray | None = None

    def set(self, state: Any, budget: Budget) -> None:
        """(version, shape, element type, whether in Fortran's order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise PickleError("has an array of numpy that is none")
        _, shape, kind, fortran, data = state
        if isinstance(data, str):  # of Python 2
            budget.spend(len(data))
            data = data.encode("latin1")
        self.values = _array(data, kind, shape, "F" if fortran else "C")


def dtype(given: tuple[Any, ...]) -> NumpyDtype | Inert:
    """numpy.dtype(code, ...)."""
    code = given[0] if given else None
    if isinstance(code, bytes):
        code = code.decode("ascii")
    return NumpyDtype(code) if isinstance(code, str) and len(code) < 20 else Inert("numpy.dtype", given)


def scalar(given: tuple[Any, ...]) -> Any:
    """A number, as Python's own."""
    if len(given) == 2 and isinstance(given[0], NumpyDtype) and given[0].plain is not None:
        values = _array(given[1], given[0], (1,), "C")
        if values is not None:
            return values.item()
    return Inert("numpy.scalar", given)


def pending_array(given: tuple[Any, ...]) -> NumpyArray | Inert:
    """An array whose contents follow."""
    plain = len(given) == 3 and given[0] == Global("numpy", "ndarray")
    return NumpyArray() if plain else Inert("numpy.ndarray", given)


def array(given: tuple[Any, ...]) -> NumpyArray | Inert:
    """An array of a buffer: (bytes, element type, shape, order)."""
    made = NumpyArray()
    if len(given) != 4:
        return Inert("numpy.ndarray", given)
    made.values = _array(given[0], given[1], given[2], "F" if given[3] == "F" else "C")
    return made


def _array(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray | None:
    if not isinstance(kind, NumpyDtype) or kind.plain is None or not isinstance(data, bytes):
        return None
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise PickleError("has an array of numpy whose shape is none")
    if math.prod(shape) * kind.plain.itemsize != len(data):
        raise PickleError(f"has an array of numpy of shape {list(shape)!s:.100} and {len(data):,} bytes")
    import numpy as np

    return np.frombuffer(data, kind.plain).reshape(shape, order=order)
