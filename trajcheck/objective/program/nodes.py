"""A program's nodes, from JSON to steps: each checked before anything is run. torch is not needed for it.

A node is an object with a `name`, which no other node has, and an `op`:

    input                          `at`: the place of the batch's tensor
    parameter, buffer, loss,       `of`: its name; `loss` are tensors of a loss that is itself a module
    constant
    aten.NAME.OVERLOAD             `args`, `kwargs`: an operator of operators/
    python.NAME                    `args`: arithmetic on numbers (arithmetic.py); getitem; require, which stops the
                                   program where its number is 0: the batch does not fit
    no_grad, grad, autocast        a block: `args` go to the `inputs` of its own `nodes`, its `outputs` come back

A node takes what stands before it and nothing else, so there are no cycles and no jumps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trajcheck.objective.program.arguments import Misfit, Reference, bound, limits_of, scalar
from trajcheck.objective.program.arithmetic import FUNCTIONS
from trajcheck.objective.program.schema import Kind, Operator, operators

MOST_NODES = 100_000
MOST_BLOCKS_DEEP = 8

SOURCES = ("parameter", "buffer", "loss", "constant")
BLOCKS = ("no_grad", "grad", "autocast")
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,79}")


@dataclass
class Step:
    """One node: its result goes to `place` of the values, and `frees` are the places that nothing needs after it."""

    name: str
    op: str
    place: int
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    operator: Operator | None = None
    of: str = ""  # the tensor's name
    at: int = 0  # the batch's tensor, the item
    block: Block | None = None
    frees: tuple[int, ...] = ()
    #: Numbers that only a run knows, and what they may be: argument, place of the value, lowest, highest.
    limits: tuple[tuple[str, int, int, int], ...] = ()


@dataclass
class Block:
    """Steps with values of their own: the program, or what stands inside no_grad or autocast."""

    steps: list[Step]
    inputs: int  # so many values are there at first
    outputs: list[int]
    places: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Value:
    place: int
    kind: Kind
    kept: bool  # a parameter or a constant, or a view of one: never written to


class _Scope:
    """Checks the nodes of one block, in their order."""

    def __init__(self, program: Checked, depth: int) -> None:
        self._program, self._depth = program, depth
        self._values: dict[str, _Value] = {}
        self._placed: list[_Value] = []
        self.steps: list[Step] = []

    def put(self, name: Any, kind: Kind, kept: bool) -> int:
        """A place for a new value."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Misfit(f"a node is called {name!r:.40}; expected small letters, digits and _")
        if name in self._values:
            raise Misfit(f"two nodes are called {name}")
        self._values[name] = value = _Value(len(self._placed), kind, kept)
        self._placed.append(value)
        return value.place

    def value(self, name: str) -> _Value:
        if name not in self._values:
            raise Misfit(f"takes {name!r:.80}, and no node before it is called so")
        return self._values[name]

    def look_up(self, name: str) -> tuple[Reference, Kind]:
        found = self.value(name)
        return Reference(found.place), found.kind

    def referred(self, value: Any) -> _Value:
        """The value that {"node": name} stands for."""
        if not isinstance(value, dict) or value.keys() != {"node"} or not isinstance(value["node"], str):
            raise Misfit(f"takes {value!r:.40}; expected a node")
        return self.value(value["node"])

    def add(self, node: Any) -> None:
        """Raises Misfit, which names the node."""
        if not isinstance(node, dict) or not isinstance(node.get("op"), str) or not isinstance(node.get("name"), str):
            raise Misfit(f"a node is {node!r:.60}; expected an object with a name and an op")
        try:
            self._add(node, node["op"])
        except Misfit as error:
            raise Misfit(f"node {node['name']!r:.80} ({node['op']:.80}): {error}") from None

    def _add(self, node: dict[str, Any], op: str) -> None:
        self._program.count()
        extra = node.keys() - {"name", "op", *FIELDS.get(op if op in FIELDS else op.partition(".")[0], ())}
        if extra:
            raise Misfit(f"it has {min(extra)!r:.40}, which no such node has")
        family, _, name = op.partition(".")
        if op == "input":
            self._input(node)
        elif op in SOURCES:
            self._source(node, op)
        elif op in BLOCKS:
            self._block(node, op)
        elif family == "python":
            self._python(node, name)
        elif family == "aten":
            self._operator(node, name)
        else:
            raise Misfit("it is of no kind that a program has")

    def _input(self, node: dict[str, Any]) -> None:
        at = node.get("at")
        if type(at) is not int or not 0 <= at < self._program.inputs:
            raise Misfit(f"it is input {at!r:.20} of {self._program.inputs}")
        self._outermost()
        self.steps.append(Step(node["name"], "input", self.put(node["name"], "tensor", False), at=at))

    def _source(self, node: dict[str, Any], op: str) -> None:
        of = node.get("of")
        if not isinstance(of, str) or of not in self._program.tensors[op]:
            raise Misfit(f"there is no {op} {of!r:.80}")
        self._outermost()
        self._program.used.add((op, of))
        self.steps.append(
            Step(node["name"], op, self.put(node["name"], "tensor", op in ("parameter", "constant")), of=of)
        )

    def _outermost(self) -> None:
        if self._depth:
            raise Misfit("it stands inside a block")

    def _python(self, node: dict[str, Any], name: str) -> None:
        args = node.get("args")
        count = 2 if name == "getitem" else 1 if name == "require" else FUNCTIONS.get(name, (0, None))[0]
        if not count:
            raise Misfit("no program has such arithmetic")
        if not isinstance(args, list) or len(args) != count:
            raise Misfit(f"it takes a list of {count}")
        if name == "getitem":
            self._item(node, args)
            return
        taken: list[Any] = []
        for each in args:
            if isinstance(each, dict) and "node" in each:
                if (found := self.referred(each)).kind != "number":
                    raise Misfit(f"{each['node']} is no number")
                taken.append(Reference(found.place))
            else:
                taken.append(scalar(each))
        place = self.put(node["name"], "number", False)
        self.steps.append(Step(node["name"], f"python.{name}", place, taken))

    def _item(self, node: dict[str, Any], args: list[Any]) -> None:
        whole, at = self.referred(args[0]), args[1]
        if type(at) is not int or not 0 <= at < 1 << 16:
            raise Misfit(f"it takes item {at!r:.20}")
        if isinstance(whole.kind, str) and whole.kind != "tensors":
            raise Misfit("it takes an item of what is no list")
        if isinstance(whole.kind, tuple) and at >= len(whole.kind):
            raise Misfit(f"it takes item {at} of {len(whole.kind)}")
        kind = whole.kind[at] if isinstance(whole.kind, tuple) else "tensor"
        place = self.put(node["name"], kind, whole.kept)
        self.steps.append(Step(node["name"], "python.getitem", place, [Reference(whole.place)], at=at))

    def _operator(self, node: dict[str, Any], name: str) -> None:
        operator = operators().get(name)
        if operator is None:
            raise Misfit("this operator is not among those that a program may use")
        given = node.get("args", []), node.get("kwargs", {})
        args, kwargs = bound(operator, *given, self.look_up)
        by_name = {**dict(zip((each.name for each in operator.positional), args, strict=False)), **kwargs}
        kept, limits = False, []
        everything_shared = operator.aliases and not any(each.shared or each.written for each in operator.arguments)
        for argument in operator.arguments:
            places = {each.place for each in _references(by_name.get(argument.name))}
            held = any(self._placed[place].kept for place in places)
            if argument.written and held and not name.startswith("embedding_renorm_"):
                raise Misfit("it writes into a parameter or a constant")
            kept |= held and (argument.shared or argument.written or everything_shared)
            lowest, highest = limits_of(operator, argument)
            if argument.type.startswith(("int", "SymInt")):
                limits += [(argument.name, place, lowest, highest) for place in sorted(places)]
        place = self.put(node["name"], operator.result, kept)
        step = Step(node["name"], f"aten.{name}", place, args, kwargs, operator, limits=tuple(limits))
        self.steps.append(step)

    def _block(self, node: dict[str, Any], op: str) -> None:
        if self._depth >= MOST_BLOCKS_DEEP:
            raise Misfit(f"blocks are nested more than {MOST_BLOCKS_DEEP} deep")
        args, names = node.get("args"), node.get("inputs")
        if not isinstance(args, list) or not isinstance(names, list) or len(args) != len(names):
            raise Misfit("its args and inputs are no lists of one length")
        inner = _Scope(self._program, self._depth + 1)
        taken = [self.referred(each) for each in args]
        for name, value in zip(names, taken, strict=True):
            inner.put(name, value.kind, value.kept)
        block = inner.finished(node.get("nodes"), node.get("outputs"), len(names))
        block.settings = _settings(node) if op == "autocast" else {}
        values = [inner._placed[place] for place in block.outputs]
        kind: Any = tuple(each.kind for each in values)
        if any(isinstance(each, tuple) for each in kind):
            raise Misfit("it gives back what is neither a tensor nor a number")
        place = self.put(node["name"], kind, any(each.kept for each in values))
        self.steps.append(Step(node["name"], op, place, [Reference(each.place) for each in taken], block=block))

    def finished(self, nodes: Any, outputs: Any, inputs: int) -> Block:
        """All nodes checked, and what is needed for how long."""
        if not isinstance(nodes, list) or not isinstance(outputs, list):
            raise Misfit("its nodes or its outputs are no list")
        for node in nodes:
            self.add(node)
        places = [self.referred(each).place for each in outputs]
        last: dict[int, int] = {}
        for i, step in enumerate(self.steps):
            last[step.place] = i
            for each in _references([step.args, list(step.kwargs.values())]):
                last[each.place] = i
        ends: dict[int, list[int]] = {}
        for place, i in last.items():
            if place not in places:
                ends.setdefault(i, []).append(place)
        for i, step in enumerate(self.steps):
            step.frees = tuple(ends.get(i, ()))
        return Block(self.steps, inputs, places, len(self._placed))


#: What a node has beside name and op.
FIELDS = {
    "input": ("at",),
    **dict.fromkeys(SOURCES, ("of",)),
    **dict.fromkeys(BLOCKS, ("args", "inputs", "nodes", "outputs")),
    "python": ("args",),
    "aten": ("args", "kwargs"),
}
FIELDS["autocast"] += ("device", "dtype", "enabled", "cache")


def _settings(node: dict[str, Any]) -> dict[str, Any]:
    found = {name: node.get(name) for name in ("device", "dtype", "enabled", "cache")}
    if found["device"] not in ("cpu", "cuda") or found["dtype"] not in (None, "bfloat16", "float16", "float32"):
        raise Misfit(f"it casts on {found['device']!r:.20} to {found['dtype']!r:.20}")
    if not isinstance(found["enabled"], bool) or found["cache"] not in (None, True, False):
        raise Misfit("its enabled or cache is neither true nor false")
    return found


def _references(value: Any) -> list[Reference]:
    if isinstance(value, Reference):
        return [value]
    return [found for each in value for found in _references(each)] if isinstance(value, list) else []


class Checked:
    """A whole program: its steps, and which tensors it takes."""

    def __init__(
        self, nodes: Any, output: Any, requires: Any, inputs: int, tensors: Mapping[str, frozenset[str]]
    ) -> None:
        """`requires` are nodes that look at the sizes of the batch and nothing else, `inputs` is the number of its
        tensors, `tensors` the names of parameters, buffers and constants. Raises Misfit."""
        self.inputs, self.tensors = inputs, tensors
        self.used: set[tuple[str, str]] = set()
        self._count = 0
        self.requires = _Scope(self, 0).finished(requires, [], 0)
        scope = _Scope(self, 0)
        self.block = scope.finished(nodes, [output], 0)
        if scope.referred(output).kind != "tensor":
            raise Misfit("its output is no tensor")

    def count(self) -> None:
        self._count += 1
        if self._count > MOST_NODES:
            raise Misfit(f"it has more than {MOST_NODES:,} nodes")
