"""A checked program, run: node after node, without any code being made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trajcheck.errors import ObjectiveError
from trajcheck.objective.program.arguments import Dtype, Format, Here, Misfit, Reference, within
from trajcheck.objective.program.arithmetic import calculate
from trajcheck.objective.program.bounds.elements import allowed, made
from trajcheck.objective.program.bounds.operations import allowed_operations, operations
from trajcheck.objective.program.functions import function_of
from trajcheck.objective.program.nodes import Block, Checked, Step
from trajcheck.readable import size_text

#: Operators whose result has a size that only their numbers tell: shapes of the batch do not say what they make.
_UNKNOWN_SIZES = frozenset(["item", "_local_scalar_dense", "masked_select", "nonzero", "index", "equal"])


@dataclass
class _Call:
    """A step with torch's own function and with arguments in which only values are missing."""

    step: Step
    function: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    slots: list[tuple[int, int]]  # places of `args` that are one value each
    nested: list[tuple[int, Any]]  # and those that hold values further in
    named: list[tuple[str, Any]]
    block: _Calls | None = None


@dataclass
class _Calls:
    calls: list[_Call]
    block: Block


class Program:
    """f(tensors of the batch), with the tensors that `source` gives for parameters, buffers and constants.

    `set` says where it makes tensors and what becomes of the dtypes that are written in it.
    """

    def __init__(self, checked: Checked, title: str) -> None:
        self.checked, self._title = checked, title
        self.device = torch.device("cpu")
        steps = [*steps_of(checked.block), *steps_of(checked.requires)]
        self._functions = {step.op: function_of(step, title) for step in steps if step.operator}
        unknown = (step.operator.name.partition(".")[0] for step in steps if step.operator)
        self._sizes_unknown = not _UNKNOWN_SIZES.isdisjoint(unknown)
        # Of batches, parameters and buffers, whose evaluation was seen to stay within the limit: buffers may change.
        self._known_sizes: set[Any] = set()
        self.set(self.device, lambda dtype: dtype)

    def set(self, device: torch.device, converted: Callable[[torch.dtype], torch.dtype]) -> None:
        """Where tensors are made from here on, and in which dtypes."""
        self.device, self._converted = device, converted
        self._known_sizes.clear()
        self._calls, self._requires = self._prepared(self.checked.block), self._prepared(self.checked.requires)

    def _prepared(self, block: Block) -> _Calls:
        return _Calls([self._call(step) for step in block.steps], block)

    def _call(self, step: Step) -> _Call:
        # a view reads the same bytes as another dtype, and is no conversion
        converted = (lambda dtype: dtype) if step.op == "aten.view.dtype" else self._converted

        def constant(value: Any) -> Any:
            match value:
                case Dtype(name):
                    return converted(getattr(torch, name))
                case Format(name):
                    return getattr(torch, name)
                case Here():
                    return self.device
                case list():
                    return [constant(each) for each in value]
            return value

        args = [constant(each) for each in step.args]
        kwargs = {name: constant(each) for name, each in step.kwargs.items()}
        slots = [(i, each.place) for i, each in enumerate(args) if isinstance(each, Reference)]
        nested = [(i, each) for i, each in enumerate(args) if isinstance(each, list) and _refers(each)]
        named = [(name, each) for name, each in kwargs.items() if isinstance(each, Reference) or _refers(each)]
        block = None if step.block is None else self._prepared(step.block)
        return _Call(step, self._functions.get(step.op, _nothing), args, kwargs, slots, nested, named, block)

    def __call__(self, batch: Sequence[Tensor], source: Callable[[str, str], Tensor]) -> Tensor:
        """[] floating. `source` gives a tensor by kind ("parameter", "buffer", "constant") and name.

        Raises ObjectiveError, which names the node, where the program would make more elements than are allowed, or
        take more operations, where the batch is not of the sizes that it was exported for, and where an operator fails.
        """
        taken = {each: source(*each) for each in self.checked.used}
        sizes = tuple(tuple(tensor.shape) for tensor in (*batch, *taken.values()))
        watched = self._sizes_unknown or sizes not in self._known_sizes
        budget = _Budget(taken.values(), batch) if watched else None
        if watched:
            self._block(self._requires, [], batch, taken, budget)
        (value,) = self._block(self._calls, [], batch, taken, budget)
        if not self._sizes_unknown and len(self._known_sizes) < 1000:
            self._known_sizes.add(sizes)
        if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
            raise ObjectiveError(f"{self._title}: the program gives no floating scalar")
        return value

    def _block(
        self,
        calls: _Calls,
        inputs: list[Any],
        batch: Sequence[Tensor],
        taken: Mapping[tuple[str, str], Tensor],
        budget: _Budget | None,
    ) -> list[Any]:
        values: list[Any] = [*inputs, *[None] * (calls.block.places - len(inputs))]
        for call in calls.calls:
            step = call.step
            try:
                if step.operator is not None:
                    args = call.args
                    if call.slots or call.nested:
                        args = args.copy()
                        for i, place in call.slots:
                            args[i] = values[place]
                        for i, each in call.nested:
                            args[i] = _resolved(each, values)
                    kwargs = call.kwargs
                    if call.named:
                        kwargs = {**kwargs, **{name: _resolved(each, values) for name, each in call.named}}
                    for name, place, lowest, highest in step.limits:
                        _check_number(name, values[place], lowest, highest)
                    if budget is not None:
                        budget.charge(step, args, kwargs)
                    found = call.function(*args, **kwargs)
                elif call.block is not None:
                    given = [values[each.place] for each in step.args]
                    with self._inside(step):
                        found = self._block(call.block, given, batch, taken, budget)
                else:
                    found = _other(step, values, batch, taken)
            except (ObjectiveError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                raise self._failed(step, error) from error
            values[step.place] = found
            for place in step.frees:
                values[place] = None
        return [values[place] for place in calls.block.outputs]

    def _inside(self, step: Step) -> AbstractContextManager[Any]:
        """The block's gradient mode, or its autocast: none where the replay is in a dtype that no autocast has."""
        if step.op != "autocast":
            return torch.no_grad() if step.op == "no_grad" else torch.enable_grad()
        assert step.block is not None
        settings = step.block.settings
        dtype = None if settings["dtype"] is None else self._converted(getattr(torch, settings["dtype"]))
        enabled = settings["enabled"] and dtype in (None, torch.bfloat16, torch.float16)
        return torch.autocast(settings["device"], dtype if enabled else None, enabled, settings["cache"])

    def _failed(self, step: Step, error: Exception) -> ObjectiveError:
        words = " ".join(str(error).split())[:300]
        said = words if isinstance(error, Misfit) else f"it raised {type(error).__name__}: {words}"
        return ObjectiveError(f"{self._title}: node {step.name!r} ({step.op}): {said}")


def steps_of(block: Block) -> Iterator[Step]:
    """All steps, those inside blocks too."""
    for step in block.steps:
        yield step
        if step.block is not None:
            yield from steps_of(step.block)


_NO_LIMIT = "An objective file (--objective FILE.py:NAME) has no limit"


class _Budget:
    """What an evaluation may still make."""

    def __init__(self, taken: Any, batch: Sequence[Tensor]) -> None:
        taken = list(taken)
        widest = max((size for tensor in (*taken, *batch) for size in tensor.shape), default=1)
        held, given = (sum(tensor.numel() for tensor in each) for each in (taken, batch))
        self._most = self._left = allowed(held, given, widest)
        self._most_work = self._work_left = allowed_operations(held, given, widest)

    def charge(self, step: Step, args: list[Any], kwargs: dict[str, Any]) -> None:
        operator = step.operator
        assert operator is not None
        arguments = {each.name: value for each, value in zip(operator.positional, args, strict=False)}
        given = {name: value for name, value in {**arguments, **kwargs}.items() if value is not None}
        elements = made(operator.rule, given)
        self._left -= elements
        if self._left < 0:
            raise Misfit(
                f"the program would make more than {self._most:,} elements ({size_text(8 * self._most)} in float64), "
                f"the most for its parameters and this batch. {_NO_LIMIT}"
            )
        self._work_left -= operations(operator, given, elements)
        if self._work_left < 0:
            raise Misfit(
                f"the program would take more than {self._most_work:,} operations, the most for its parameters and "
                f"this batch. {_NO_LIMIT}"
            )


def _nothing(*_: Any) -> None:
    raise AssertionError("a step without an operator is not called")


def _other(step: Step, values: list[Any], batch: Sequence[Tensor], taken: Mapping[tuple[str, str], Tensor]) -> Any:
    """A step that is neither an operator nor a block."""
    if step.op == "input":
        return batch[step.at]
    if step.op == "python.getitem":
        return values[step.args[0].place][step.at]
    if step.op.startswith("python."):
        numbers = [_resolved(each, values) for each in step.args]
        if step.op == "python.require":
            if not numbers[0]:
                raise Misfit("the batch does not fit the program: its sizes are not among those for which it holds")
            return numbers[0]
        return calculate(step.op.removeprefix("python."), numbers)
    return taken[step.op, step.of]


def _refers(value: Any) -> bool:
    return isinstance(value, Reference) or (isinstance(value, list) and any(map(_refers, value)))


def _resolved(value: Any, values: list[Any]) -> Any:
    if isinstance(value, Reference):
        return values[value.place]
    return [_resolved(each, values) for each in value] if isinstance(value, list) else value


def _check_number(name: str, value: Any, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Misfit(f"its argument {name} is {value!r:.40}; expected an integer")
    try:
        within(value, (lowest, highest))
    except Misfit as error:
        raise Misfit(f"its argument {name} {error}") from None
