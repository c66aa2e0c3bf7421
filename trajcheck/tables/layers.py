"""The columns of layers.csv: what steps.csv and references.csv hold, for one tensor or one group of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from trajcheck.metrics.columns import Column
from trajcheck.metrics.geometry import radial_cos
from trajcheck.scalars.values import RowScalars, summed
from trajcheck.tables.source import Source

#: What makes sense for some of the parameters: inner products and norms, without the loss.
STEP_COLUMNS = (
    *("param_norm", "grad_norm", "radial_cos", "step_norm", "init_dist", "path_length", "update_cos"),
    *("update_corr", "update_corr_sum", "descent", "descent_sum", "path_integral", "convexity_num"),
    *("inst_smooth", "max_smooth", "avg_smooth", "exp_smooth"),
)
REFERENCE_COLUMNS = (
    *("ref_dist", "grad_norm", "radial_cos", "grad_dot_ref", "rsi", "eb", "cos", "cos_skip", "lo_lr"),
    *("update_dot_ref", "convexity_num", "inst_smooth", "max_smooth", "avg_smooth", "exp_smooth"),
    *("rsi_wd", "eb_wd", "cos_wd"),
)


def groups_of(names: Sequence[str], patterns: Sequence[str]) -> dict[str, list[str]]:
    """Tensors by the label of their row: what the first pattern that is found in the name matched (its first group,
    if it has one), else the name itself."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_label(name, patterns), []).append(name)
    return groups


def _label(name: str, patterns: Sequence[str]) -> str:
    for pattern in patterns:
        if match := re.search(pattern, name):
            return (match.re.groups and match[1]) or match[0] or name
    return name


def layer_source(source: Source, tensors: Sequence[str]) -> Source:
    """The shares that some tensors have in the scalars of every row."""
    scalars: dict[int, RowScalars] = {}
    for place, row in source.scalars.items():
        shares = [row.tensors[name] for name in tensors if name in row.tensors]
        scalars[place] = summed(shares) if shares else row.keep((), ())
        scalars[place].tensors = {name: row.tensors[name] for name in tensors if name in row.tensors}
    return replace(source, scalars=scalars)


def not_empty(source: Source) -> list[str]:
    """The tensors that have elements."""
    return [name for name in source.trajectory.shapes if numel(source, [name])]


def numel(source: Source, tensors: Sequence[str]) -> int:
    """How many parameters some tensors hold."""
    return sum(math.prod(source.trajectory.shapes[name]) for name in tensors)


def with_radial_cos(source: Source, columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns, and radial_cos beside grad_norm."""
    dot = source.recorded("grad_dot_param", source.no_gradient)
    grad_sq = source.recorded("grad_sq", source.no_gradient)
    return {**columns, "radial_cos": radial_cos(dot, grad_sq, source.recorded("param_sq"))}
