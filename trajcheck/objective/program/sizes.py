"""For which sizes of a batch an exported program holds, as nodes that stop it at others.

Tracing decides by the sizes that it saw: a loss that does another thing for batches of less than five is exported as
what it does for more. torch knows for which sizes that is right; a replay that did not ask would be wrong in silence.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from trajcheck.errors import ObjectiveError

_COMPARED = {ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge"}
_ARITHMETIC = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.Pow: "pow",
}
#: Functions of whole numbers, by the names that torch has for them.
_CALLED = {
    **{"max": "max", "min": "min", "Max": "max", "Min": "min", "Add": "add", "Mul": "mul"},
    **{"FloorDiv": "floordiv", "Mod": "mod", "PythonMod": "mod", "Pow": "pow", "PowByNatural": "pow"},
}
_OF_TWO = ("floordiv", "mod", "pow")

_RELATIONS = {
    **{"Equality": "eq", "Unequality": "ne", "StrictLessThan": "lt", "LessThan": "le"},
    **{"StrictGreaterThan": "gt", "GreaterThan": "ge"},
}
_SYMMETRIC = ("python.eq", "python.ne", "python.add", "python.mul")


class Unwritable(ObjectiveError):
    """Sizes for which a program holds that cannot be said in it."""


class Requirements:
    """Nodes of their own: the sizes of the inputs, and what must hold of them. `inputs` are torch's nodes for the
    tensors of the batch, in order. Raises Unwritable for conditions that are not of whole numbers."""

    def __init__(self, program: torch.export.ExportedProgram, inputs: Sequence[fx.Node]) -> None:
        self.nodes: list[dict[str, Any]] = []
        self._names: dict[int, str] = {}
        self._sizes: dict[tuple[int, int], Any] = {}
        self._symbols: dict[Any, tuple[int, int]] = {}
        self._known: dict[str, str] = {}  # what is said already, by its words
        shapes = self._shapes = [list(node.meta["val"].shape) for node in inputs]
        for i, shape in enumerate(shapes):
            for axis, size in enumerate(shape):
                symbol = _symbol(size)
                if symbol is not None and symbol.is_Symbol:
                    self._symbols.setdefault(symbol, (i, axis))
        for i, shape in enumerate(shapes):
            for axis, size in enumerate(shape):
                symbol = _symbol(size)
                if symbol is not None and self._symbols.get(symbol) != (i, axis):
                    self._require("eq", self._size(i, axis), self._expression(symbol))
        for symbol, limits in program.range_constraints.items():
            if symbol in self._symbols:
                lowest, highest = _number(limits.lower), _number(limits.upper)
                if lowest is not None and lowest > 2:  # 2 is what tracing takes for "not 1", and said where it matters
                    self._require("ge", self._size(*self._symbols[symbol]), lowest)
                if highest is not None:
                    self._require("le", self._size(*self._symbols[symbol]), highest)
        conditions = getattr(program, "_guards_code", None)
        for condition in conditions or []:
            self._guard(str(condition))
        if conditions is None:  # torch before 2.9 keeps them where the sizes come from, as its own expressions
            for guard in _guards(shapes):
                if guard.expr.free_symbols <= self._symbols.keys():
                    self._add("python.require", [self._relation(guard.expr)])

    def _add(self, op: str, args: list[Any]) -> dict[str, str]:
        key = f"{op} {sorted(map(str, args)) if op in _SYMMETRIC else args}"
        if key not in self._known:
            self._known[key] = f"size_{len(self._known) + 1}"
            self.nodes.append({"name": self._known[key], "op": op, "args": args})
        return {"node": self._known[key]}

    def _size(self, i: int, axis: int) -> Any:
        if i not in self._names:
            self._names[i] = f"input_{i}"
            self.nodes.append({"name": self._names[i], "op": "input", "at": i})
        if (i, axis) not in self._sizes:
            self._sizes[i, axis] = self._add("aten.sym_size.int", [{"node": self._names[i]}, axis])
        return self._sizes[i, axis]

    def _require(self, op: str, one: Any, other: Any) -> None:
        self._add("python.require", [self._add(f"python.{op}", [one, other])])

    def _expression(self, found: Any) -> Any:
        """A sum or product of sizes, as torch's symbols say it."""
        if found.is_Symbol and found in self._symbols:
            return self._size(*self._symbols[found])
        if found.is_Integer:
            return int(found)
        op = _CALLED.get(type(found).__name__)
        if op is None or (op in _OF_TWO and len(found.args) != 2):
            raise Unwritable(f"the sizes of its batch depend on one another by {found}")
        if op == "pow" and not (found.args[1].is_Integer and found.args[1] > 0):  # no whole number
            raise Unwritable(f"the sizes of its batch depend on one another by {found}")
        whole, *rest = [self._expression(each) for each in found.args]
        for each in rest:
            whole = self._add(f"python.{op}", [whole, each])
        return whole

    def _relation(self, found: Any) -> Any:
        """A condition on sizes, as torch's symbols say it."""
        name = type(found).__name__
        if name in _RELATIONS:
            return self._add(f"python.{_RELATIONS[name]}", [self._expression(each) for each in found.args])
        if name == "Not":
            return self._add("python.not", [self._relation(found.args[0])])
        if name in ("And", "Or"):
            whole, *rest = [self._relation(each) for each in found.args]
            for each in rest:
                whole = self._add(f"python.{name.lower()}", [whole, each])
            return whole
        raise Unwritable(f"it holds where {found!s:.80}")

    def _guard(self, code: str) -> None:
        """One condition of torch's, in Python's words; only on sizes of inputs."""
        tree = ast.parse(code, mode="eval").body
        parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
        for part in parts:
            if not self._fixed(part):
                self._add("python.require", [self._condition(part)])

    def _fixed(self, tree: ast.AST) -> bool:
        """Whether it says that a size is the only one that it can be, which the shapes of the batch say too."""
        match tree:
            case ast.Compare(left=ast.Subscript(), ops=[ast.Eq()], comparators=[ast.Constant()]):
                i, axis = self._axis(tree.left)
                return _symbol(self._shapes[i][axis]) is None
        return False

    def _condition(self, tree: ast.AST) -> Any:
        match tree:
            case ast.Compare(left=left, ops=ops, comparators=others):
                sides = [self._value(each) for each in (left, *others)]
                whole: Any = None
                for one, op, other in zip(sides, ops, sides[1:], strict=False):
                    this = self._add(f"python.{_COMPARED[type(op)]}", [one, other])
                    whole = this if whole is None else self._add("python.and", [whole, this])
                return whole
            case ast.BoolOp(op=op, values=values):
                word = "and" if isinstance(op, ast.And) else "or"
                whole, *rest = [self._condition(each) for each in values]
                for each in rest:
                    whole = self._add(f"python.{word}", [whole, each])
                return whole
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self._add("python.not", [self._condition(operand)])
        raise Unwritable(f"it holds where {ast.unparse(tree)!s:.80}")

    def _value(self, tree: ast.AST) -> Any:
        match tree:
            case ast.Constant(value=int() as number):
                return number
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as number)):
                return -number
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._add("python.neg", [self._value(operand)])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return self._add(f"python.{_ARITHMETIC[type(op)]}", [self._value(left), self._value(right)])
            case ast.Call(func=ast.Name(id=name), args=[first, *rest], keywords=[]) if name in _CALLED:
                whole = self._value(first)
                for each in rest:
                    whole = self._add(f"python.{_CALLED[name]}", [whole, self._value(each)])
                return whole
        return self._size(*self._axis(tree))

    def _axis(self, tree: ast.AST) -> tuple[int, int]:
        """Input and axis of L['inputs'][i].size()[axis]."""
        match tree:
            case ast.Subscript(
                value=ast.Call(
                    func=ast.Attribute(value=ast.Subscript(slice=ast.Constant(value=int() as i)), attr="size"), args=[]
                ),
                slice=ast.Constant(value=int() as axis),
            ):
                return i, axis
        raise Unwritable(f"it holds where {ast.unparse(tree)!s:.80}")


def _guards(shapes: Sequence[Sequence[Any]]) -> list[Any]:
    """What tracing decided by, from the first size that is open."""
    for size in (each for shape in shapes for each in shape):
        environment = getattr(getattr(size, "node", None), "shape_env", None)
        if environment is not None:
            return list(environment.guards)
    return []


def _symbol(size: Any) -> Any:
    """torch's symbol of a size that is open; None of one that is fixed."""
    node = getattr(size, "node", None)
    expression = None if node is None else node.expr
    return None if expression is None or expression.is_Integer else expression


def _number(limit: Any) -> int | None:
    try:
        number = int(limit)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None
    return number if abs(number) < 2**48 else None
