"""From the graph that torch exports to the nodes of a program; what has no place in one is said by name.

Only nodes that the result needs are written, and those that write into buffers: what tracing asserts of dtypes falls
away. Nodes are numbered by their operators, so that no name of the training's code is in the file.
"""

from __future__ import annotations

import math
import operator
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from trajcheck.errors import ObjectiveError
from trajcheck.objective.program.arguments import LETTERS, finite_or_word
from trajcheck.objective.program.schema import operators

Nodes = list[dict[str, Any]]

#: Python's functions on sizes, by torch's or Python's own, and the name that a program has for them.
_PYTHON: dict[Any, str] = {
    **{getattr(operator, name): name for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "neg")},
    **{getattr(operator, name): name for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    operator.and_: "and", operator.or_: "or", operator.not_: "not",
    torch.sym_max: "max", torch.sym_min: "min", torch.sym_not: "not", torch.sym_int: "int", torch.sym_float: "float",
    math.trunc: "int", math.ceil: "ceil", math.floor: "floor", math.sqrt: "sqrt", int: "int", float: "float",
}  # fmt: skip

#: What tracing notes beside what is computed; sizes are checked by `require` instead.
_NOTES = re.compile(
    r"aten\.(_assert_tensor_metadata|sym_constrain_range|sym_constrain_range_for_size|_assert_async|_functional_assert)"
)


class Writer:
    """The nodes of a graph and of the blocks in it; `sources` is {name in the module: (kind, name)} of its tensors."""

    def __init__(self, module: fx.GraphModule, sources: Mapping[str, tuple[str, str]]) -> None:
        self._sources = sources
        self._used: Counter[str] = Counter()
        self.taken: set[tuple[str, str]] = set()
        self.nodes, (self.output,) = self._block(module, {})

    def name(self, kind: str) -> str:
        """A new name for a node of a kind."""
        base = re.sub(r"[^a-z0-9]+", "_", kind.lower()).strip("_")[:60] or "node"
        self._used[base] += 1
        count = self._used[base]
        return base if count == 1 else f"{base}_{count}"

    def _block(self, module: fx.GraphModule, names: dict[fx.Node, str]) -> tuple[Nodes, list[Any]]:
        nodes: Nodes = []
        needed = _needed(module.graph)
        outputs: list[Any] = []
        place = 0
        for node in module.graph.nodes:
            if node.op == "placeholder":
                if node not in names:
                    names[node] = self.name("input")
                    nodes.append({"name": names[node], "op": "input", "at": place})
                    place += 1
            elif node.op == "output":
                found = node.args[0]
                outputs = [self._encoded(each, names, node) for each in (found if _several(found) else [found])]
            elif node in needed:
                nodes += self._node(node, module, names)
        return nodes, outputs

    def _node(self, node: fx.Node, module: fx.GraphModule, names: dict[fx.Node, str]) -> Nodes:
        if node.op == "get_attr":
            if isinstance(_attribute(module, str(node.target)), fx.GraphModule):
                return []  # the inside of a block, written with it
            kind, of = self._sources[str(node.target)]
            self.taken.add((kind, of))
            names[node] = self.name(kind)
            return [{"name": names[node], "op": kind, "of": of}]
        into = node.kwargs.get("out")
        if isinstance(into, fx.Node) and (plain := _without_out(node.target)) is not None:
            # into a tensor that is there, as spectral_norm's iterates: computed first, and copied into it
            others = {name: value for name, value in node.kwargs.items() if name != "out"}
            made = {"op": f"aten.{plain}", **self._arguments(node, plain, node.args, others, names)}
            of = self.name(plain.partition(".")[0])
            copied = {"op": "aten.copy_.default", "args": [self._encoded(into, names, node), {"node": of}]}
            names[node] = self.name("copy_")
            return [{"name": of, **made}, {"name": names[node], **copied}]
        written = self._called(node, module, names)
        return [{"name": names[node], **written}]

    def _called(self, node: fx.Node, module: fx.GraphModule, names: dict[fx.Node, str]) -> dict[str, Any]:
        target: Any = node.target
        written: dict[str, Any]
        if node.op != "call_function":
            raise _refused(node)
        if target is operator.getitem and isinstance(node.args[1], int):
            written = {"op": "python.getitem", "args": [self._encoded(node.args[0], names, node), node.args[1]]}
        elif target in _PYTHON:
            written = {"op": f"python.{_PYTHON[target]}", "args": [self._encoded(x, names, node) for x in node.args]}
        elif str(target) == "aten._assert_scalar.default":
            written = {"op": "python.require", "args": [self._encoded(node.args[0], names, node)]}
        elif isinstance(target, torch._ops.HigherOrderOperator):
            written = self._block_of(node, module, names)
        elif isinstance(target, torch._ops.OpOverload) and target.namespace == "aten":
            written = self._operator(node, target, names)
        else:
            raise _refused(node)
        names[node] = self.name(written["op"].partition(".")[2].partition(".")[0] or written["op"])
        return written

    def _operator(self, node: fx.Node, target: torch._ops.OpOverload, names: dict[fx.Node, str]) -> dict[str, Any]:
        name = f"{target._schema.name.partition('::')[2]}.{target._overloadname}"
        if name not in operators():
            raise _refused(node)
        return {"op": f"aten.{name}", **self._arguments(node, name, node.args, node.kwargs, names)}

    def _arguments(
        self, node: fx.Node, name: str, given: Sequence[Any], named: Mapping[str, Any], names: dict[fx.Node, str]
    ) -> dict[str, Any]:
        known = operators()[name]
        types = {each.name: each.type.partition("[")[0] for each in known.arguments}
        positional = [each.name for each in known.positional]
        args = [
            self._argument(types[each], each, value, names, node)
            for each, value in zip(positional, given, strict=False)
        ]
        kwargs = {
            each: self._argument(types[each], each, value, names, node)
            for each, value in named.items()
            if each not in ("pin_memory", "layout") and value is not None
        }
        return {"args": args, **({"kwargs": kwargs} if kwargs else {})}

    def _argument(self, kind: str, name: str, value: Any, names: dict[fx.Node, str], node: fx.Node) -> Any:
        if name == "equation":
            return _axes(str(value), node)
        if kind == "Layout":
            return None
        return self._encoded(value, names, node)

    def _block_of(self, node: fx.Node, module: fx.GraphModule, names: dict[fx.Node, str]) -> dict[str, Any]:
        target: Any = node.target
        kind = target.name() if callable(getattr(target, "name", None)) else str(target)
        settings: dict[str, Any] = {}
        match kind:
            case "wrap_with_set_grad_enabled":
                enabled, inner, *args = node.args
                op = "grad" if enabled else "no_grad"
            case "wrap_with_autocast":
                device, dtype, enabled, cache, inner, *args = node.args
                op = "autocast"
                settings = {"device": device, "dtype": _word(dtype), "enabled": bool(enabled), "cache": cache}
            case _:
                raise _refused(node)
        assert isinstance(inner, fx.Node)
        block = _attribute(module, str(inner.target))
        placeholders = [each for each in block.graph.nodes if each.op == "placeholder"]
        own = {each: self.name("inner") for each in placeholders}
        inputs = [own[each] for each in placeholders]
        nodes, outputs = self._block(block, own)
        given = [self._encoded(each, names, node) for each in args]
        return {"op": op, "args": given, "inputs": inputs, "nodes": nodes, "outputs": outputs, **settings}

    def _encoded(self, value: Any, names: Mapping[fx.Node, str], node: fx.Node) -> Any:
        match value:
            case fx.Node():
                return {"node": names[value]}
            case None | bool() | int() | str():
                return value
            case float():
                return finite_or_word(value)
            case complex():
                return {"complex": [value.real, value.imag]}
            case torch.dtype() | torch.memory_format():
                return _word(value)
            case torch.device():
                return "here"
        if _several(value):
            return [self._encoded(each, names, node) for each in value]
        raise ObjectiveError(f"the loss calls {node.target} with a {type(value).__name__}, which no program can hold")


def _without_out(target: Any) -> str | None:
    """The operator of our list that computes what one with `out` writes into it."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return None
    wanted = [(each.name, str(each.type)) for each in target._schema.arguments if not each.is_out]
    for overload in target._overloadpacket.overloads():
        schema = getattr(target._overloadpacket, overload)._schema
        name = f"{schema.name.partition('::')[2]}.{overload}"
        if name in operators() and [(each.name, str(each.type)) for each in schema.arguments] == wanted:
            return name
    return None


def _several(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _word(value: Any) -> str | None:
    return None if value is None else str(value).removeprefix("torch.")


def _refused(node: fx.Node) -> ObjectiveError:
    name = str(node.target).removesuffix(".default")
    inside = isinstance(node.target, torch._ops.OpOverload) and node.target.namespace != "aten"
    where = "an operator from outside torch" if inside else "which is not among the operators that a program may hold"
    return ObjectiveError(f"the loss uses {name}, {where}")


def _attribute(module: torch.nn.Module, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _writes(node: fx.Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    return node.target._schema.is_mutable or str(node.target).startswith(("aten.batch_norm", "aten.instance_norm"))


def _needed(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that the result needs, and those that write, draw or check sizes; with what they need."""
    kept: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        lasting = node.op == "output" or (node.op == "call_function" and _lasting(node))
        if lasting or node in kept:
            kept.add(node)
            kept.update(node.all_input_nodes)
    return kept


def _lasting(node: fx.Node) -> bool:
    name = str(node.target)
    if _NOTES.match(name):
        return False
    if isinstance(node.target, torch._ops.HigherOrderOperator) or name == "aten._assert_scalar.default":
        return True
    drawn = isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags
    return drawn or _writes(node) or "dropout" in name


def _axes(equation: str, node: fx.Node) -> Iterator[Any] | list[list[int]]:
    """einsum's equation as lists of integers, the result's last."""
    plain = equation.replace(" ", "")
    terms, arrow, result = plain.partition("->")
    labels = sorted({letter for letter in plain if letter.isalpha()})
    if not arrow:  # those that occur once, in order
        result = ("..." if "..." in terms else "") + "".join(each for each in labels if terms.count(each) == 1)
    if len(labels) > len(LETTERS):
        raise _refused(node)

    def axes(term: str) -> list[int]:
        return [-1 if each == "..." else labels.index(each) for each in re.findall(r"\.\.\.|[A-Za-z]", term)]

    return [axes(term) for term in [*terms.split(","), result]]
