"""Which axes of a model's parameters permute together: PERMUTATIONS of an objective file, read and checked.

    PERMUTATIONS = {
        "digits": {                                                       # NAME, as in --objective FILE.py:NAME
            "hidden": [("0.weight", 0), ("0.bias", 0), ("2.weight", 1)],  # a group: its units lie on these axes
        }
    }

A group is a set of n units (hidden neurons, channels, attention heads) that can be put in another order, if it is done
on all these axes at once, without changing the network's function. An entry is (parameter, axis), (parameter, axis,
block) or (parameter, axis, block, segments): along that axis the elements lie as [segments, n, block] in C order, so
its length is segments * n * block.

    block      consecutive elements of one unit; 1 unless said otherwise. After conv -> flatten -> linear, the linear
               weight's axis 1 has a block of height * width for each channel; attention's output projection has one of
               the head's width for each head.
    segments   how often the whole list of units is repeated along the axis; 1 unless said otherwise. The fused weight
               of queries, keys and values, [3 * heads * width, ...], has 3; the gates of an LSTM 4, of a GRU 3; a
               linear layer after a flattened image whose channels come last has height * width.

An axis belongs to one group, all of it. One parameter may be named on two axes, by two groups (the layer between two
hidden layers) or by one (a recurrent weight). Query heads that share keys (grouped-query attention) are a group of key
heads whose block on the query projection is the width of all its queries.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trajcheck.errors import ObjectiveError
from trajcheck.runs.trajectory import Shapes

Found = Mapping[str, NDArray[np.intp]]

_FORM = (
    'expected {group: [("0.weight", 0), ("0.bias", 0), ("2.weight", 1)], ...}, each entry (parameter, axis), '
    "(parameter, axis, block) or (parameter, axis, block, segments)"
)


class Axis(NamedTuple):
    """An axis of a parameter on which the units of a group lie, as [segments, units, block]."""

    parameter: str
    axis: int
    block: int = 1
    segments: int = 1

    def positions(self, order: NDArray[np.intp]) -> NDArray[np.intp]:
        """Where along the axis the elements come from when unit i becomes unit order[i]."""
        whole = np.arange(self.segments * len(order) * self.block).reshape(self.segments, len(order), self.block)
        return whole[:, order].ravel()

    def units(self, array: np.ndarray, size: int) -> np.ndarray:
        """The parameter as a matrix with a row for each of the `size` units."""
        front = np.moveaxis(array, self.axis, 0)
        cut = front.reshape(self.segments, size, self.block, -1)
        return cut.swapaxes(0, 1).reshape(size, -1)


@dataclass(frozen=True)
class Group:
    """`size` units that permute together, and the axes on which they lie."""

    name: str
    size: int
    axes: tuple[Axis, ...]

    @cached_property
    def twice(self) -> tuple[str, ...]:
        """The parameters that it permutes on two axes at once."""
        names = [axis.parameter for axis in self.axes]
        return tuple(dict.fromkeys(name for name in names if names.count(name) > 1))


@dataclass(frozen=True)
class Permutations:
    """The groups of a model, checked against the names and shapes of a run's parameters."""

    groups: tuple[Group, ...]

    @cached_property
    def identity(self) -> dict[str, NDArray[np.intp]]:
        return {group.name: np.arange(group.size) for group in self.groups}

    @cached_property
    def by_parameter(self) -> dict[str, list[tuple[Axis, str]]]:
        """The axes of each parameter that any group permutes, with that group's name."""
        table: dict[str, list[tuple[Axis, str]]] = {}
        for group in self.groups:
            for axis in group.axes:
                table.setdefault(axis.parameter, []).append((axis, group.name))
        return table


def apply(
    permutations: Permutations, found: Found, name: str, array: np.ndarray, *, but: Axis | None = None
) -> np.ndarray:
    """P b of one parameter (or its gradient): unit i of a group is what was its unit found[group][i].

    A parameter that no group names comes back as it is. `but` is an axis to leave as it is.
    """
    for axis, group in permutations.by_parameter.get(name, ()):
        if axis != but:
            array = np.take(array, axis.positions(found[group]), axis=axis.axis)
    return array


def check_permutations(declared: Any, spec: str, shapes: Shapes, tied: Mapping[str, str] | None = None) -> Permutations:
    """PERMUTATIONS of an objective file (None where it has none) as Permutations for the objective `spec`, for
    parameters of these names and shapes; `tied` are the run's tied names, alias -> name.

    Errors: ObjectiveError where NAME has no entry, or an entry is malformed, names a parameter or an axis that the run
    does not train, or an axis twice, or where the lengths of a group's axes do not give one number of units.
    """
    return _Reader(spec, shapes, tied or {}).read(declared)


class _Reader:
    def __init__(self, spec: str, shapes: Shapes, tied: Mapping[str, str]) -> None:
        self.spec, self.shapes, self.tied = spec, shapes, tied
        self.taken: dict[tuple[str, int], str] = {}

    def read(self, declared: Any) -> Permutations:
        name = self.spec.rpartition(":")[2]
        if declared is not None and not isinstance(declared, Mapping):
            raise self._error(f"PERMUTATIONS is a {type(declared).__name__}; expected {{{name!r}: {{...}}}}")
        if declared is None or name not in declared:
            raise self._missing(name, declared)
        groups = declared[name]
        if not isinstance(groups, Mapping) or not groups:
            raise self._error(f"PERMUTATIONS[{name!r}] is {_brief(groups)}; {_FORM}")
        return Permutations(tuple(self._group(str(group), entries) for group, entries in groups.items()))

    def _missing(self, name: str, declared: Mapping[str, Any] | None) -> ObjectiveError:
        listed = [f"{each} {list(shape)}" for each, shape in self.shapes.items()]
        more = f" and {len(listed) - 6} more" if len(listed) > 6 else ""
        advice = (
            'PERMUTATIONS = {"NAME": {"hidden": [("0.weight", 0), ("0.bias", 0), ("2.weight", 1)]}}, one list for each '
            f"set of units, of the axes that permute together; the run's parameters are {', '.join(listed[:6])}{more}"
        )
        if ":" not in self.spec:
            return self._error(
                "an exported program does not say which units permute. Give --objective FILE.py:NAME, and beside NAME "
                f"write {advice}"
            )
        found = "no PERMUTATIONS" if declared is None else f"PERMUTATIONS only for {', '.join(map(str, declared))}"
        return self._error(
            f"the file has {found}, and which units of {name} permute is not guessed. Write "
            f"{advice.replace('NAME', name)}"
        )

    def _group(self, group: str, entries: Any) -> Group:
        if not isinstance(entries, list | tuple) or not entries:
            raise self._error(f"group {group!r} is {_brief(entries)}; {_FORM}")
        axes = dict.fromkeys(self._axis(group, entry) for entry in entries)
        sizes: dict[Axis, int] = {}
        for axis in axes:
            if self.taken.setdefault((axis.parameter, axis.axis), group) != group or any(
                axis[:2] == other[:2] for other in sizes
            ):
                raise self._error(
                    f"axis {axis.axis} of {axis.parameter} is named twice, by group "
                    f"{self.taken[axis.parameter, axis.axis]!r} and by {group!r}; an axis belongs to one group, once"
                )
            length, unit = self.shapes[axis.parameter][axis.axis], axis.block * axis.segments
            if length % unit:
                raise self._error(
                    f"group {group!r}, {axis.parameter} axis {axis.axis}: its length {length} is no multiple of "
                    f"block * segments = {axis.block} * {axis.segments}"
                )
            sizes[axis] = length // unit
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{axis.parameter} axis {axis.axis}: {size}" for axis, size in sizes.items())
            raise self._error(
                f"group {group!r} has another number of units on different axes ({found}); they must agree. An axis of "
                "several elements a unit needs its block: (parameter, axis, block)"
            )
        return Group(group, next(iter(sizes.values())), tuple(sizes))

    def _axis(self, group: str, entry: Any) -> Axis:
        match entry:
            case (str(), int(), *rest) if len(rest) <= 2 and all(isinstance(each, int) for each in rest):
                axis = Axis(*entry)
            case _:
                raise self._error(f"group {group!r} has the entry {_brief(entry)}; {_FORM}")
        if axis.block < 1 or axis.segments < 1:
            raise self._error(f"group {group!r} has the entry {_brief(entry)}; block and segments are 1 or more")
        name = axis.parameter if axis.parameter in self.shapes else self.tied.get(axis.parameter, axis.parameter)
        if name not in self.shapes:
            near = difflib.get_close_matches(name, self.shapes, 3) or list(self.shapes)[:6]
            raise self._error(
                f"group {group!r} names {name!r}, which is not among the run's {len(self.shapes)} trained parameters; "
                f"did you mean one of {', '.join(near)}?"
            )
        shape = self.shapes[name]
        if not 0 <= axis.axis < len(shape):
            raise self._error(
                f"group {group!r} names axis {axis.axis} of {name}, whose shape is {list(shape)}; expected 0 to "
                f"{len(shape) - 1}"
                if shape
                else f"group {group!r} names axis {axis.axis} of {name}, which is a scalar and has none"
            )
        return axis._replace(parameter=name)

    def _error(self, text: str) -> ObjectiveError:
        return ObjectiveError(f"objective {self.spec}, --match-permutations: {text}")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
