"""torch's functions of the operators in our list, without the arguments for which some of them harm the process.

The smallest integer divided by -1 does not fit its type, and the processor stops the whole process for it, not torch.
An empty tensor holds what the process has let go of, keys and other data in it, and other numbers each time.
A view that the strides do not allow is a copy: where tracing saw a tensor in the order of its elements, it left out the
call that puts it so, and another kernel (of attention: replayed by the plain one) leaves its result in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trajcheck.errors import ObjectiveError
from trajcheck.objective.program.nodes import Step

#: Divisions that divide integers as such; the first two only with a rounding mode.
_DIVISIONS: dict[str, Callable[..., Tensor]] = {
    "div": torch.div,
    "divide": torch.div,
    "floor_divide": torch.floor_divide,
    "remainder": torch.remainder,
    "fmod": torch.fmod,
}
_EMPTY = frozenset(["empty", "new_empty", "empty_like"])


def function_of(step: Step, title: str) -> Callable[..., Any]:
    """What is called for a step. Raises ObjectiveError where this torch has no such operator."""
    assert step.operator is not None
    name, _, overload = step.operator.name.partition(".")
    try:
        found: Callable[..., Any] = getattr(getattr(torch.ops.aten, name), overload)
    except AttributeError as error:
        raise ObjectiveError(
            f"{title}: node {step.name!r} ({step.op}): torch {torch.__version__} has no such operator. Use a newer "
            "torch, or an objective file (--objective FILE.py:NAME)"
        ) from error
    if step.operator.name == "view.default":
        return torch.reshape
    if name in _EMPTY:
        return lambda *args, **kwargs: found(*args, **kwargs).zero_()
    division = _DIVISIONS.get(name.removesuffix("_"))
    return found if division is None else _dividing(found, division, in_place=name.endswith("_"))


def _dividing(function: Callable[..., Any], division: Callable[..., Tensor], in_place: bool) -> Callable[..., Any]:
    """a / b as (-a) / 1 where b is -1: the same number, and the smallest integer stays as it is, as in a product."""

    def divided(*args: Any, **kwargs: Any) -> Any:
        mode = {key: value for key, value in kwargs.items() if key == "rounding_mode"}
        a, b = (*args, *(kwargs[key] for key in ("self", "other") if key in kwargs))
        common = torch.result_type(a, b)
        whole = common.is_signed and not common.is_floating_point and not common.is_complex
        if not whole or any(isinstance(each, Tensor) and each.device.type != "cpu" for each in (a, b)):
            return function(*args, **kwargs)
        if division is torch.div and mode.get("rounding_mode") is None:
            return function(*args, **kwargs)
        one, other = ((each if isinstance(each, Tensor) else torch.tensor(each)).to(common) for each in (a, b))
        sign = torch.where(other == -1, -1, 1).to(common)
        result = division(one * sign, other * sign, **mode)
        return a.copy_(result) if in_place else result

    return divided
