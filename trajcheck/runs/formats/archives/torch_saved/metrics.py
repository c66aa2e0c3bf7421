"""Lightning's metrics.csv: losses and rates by step.

Lightning counts a step when its update is made, and logs under the number before: what stands at step s was logged by
the batch whose update makes x_{s+1} of x_s. So a loss there is f(x_s; z_s), and a rate that of the update from x_s on.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence

from trajcheck.errors import StepFileError
from trajcheck.files.trees.tree import Tree
from trajcheck.runs.formats.archives.step_names import natural_key
from trajcheck.runs.logs.run_log import AT_STEP, MEAN, RunLog

NAME = "metrics.csv"
MOST_BYTES, MOST_COLUMNS = 500_000_000, 10_000
_LOSSES = re.compile(r"^(train(ing)?[_/.]?)?loss(_step)?$", re.IGNORECASE)
_RATES = re.compile(r"^lr-[^/]+(/pg\d+)?$")  # LearningRateMonitor's


def read_metrics(tree: Tree, name: str) -> RunLog | None:
    """The log that lies in a file of an archive; None where it has no steps. Raises StepFileError."""
    try:
        text = tree.read(name, MOST_BYTES).decode("utf-8")
        rows = list(csv.DictReader(io.StringIO(text)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise StepFileError(f"{tree.shown(name)}: not a table of Lightning's CSVLogger ({error}).") from error
    columns = [column for column in (rows[0] if rows else {}) if isinstance(column, str)][:MOST_COLUMNS]
    if "step" not in columns:
        return None
    steps = [_number(row.get("step")) for row in rows]
    losses = sorted((column for column in columns if _LOSSES.match(column)), key=lambda c: not c.endswith("_step"))
    loss = _values(rows, steps, losses[0]) if losses else {}
    kind = AT_STEP if losses and (losses[0].endswith("_step") or _several_an_epoch(rows, losses[0])) else MEAN
    rates = sorted((column for column in columns if _RATES.match(column)), key=natural_key)
    groups = [_values(rows, steps, column) for column in rates]
    lr = {
        step: tuple(group[step] for group in groups)
        for step in (groups[0] if groups else ())
        if all(step in group and group[step] >= 0 for group in groups)
    }
    if not lr and not loss:
        return None
    return RunLog(tree.shown(name), lr, loss, kind, files=(tree.member(name).path,))


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else math.nan
    except (ValueError, TypeError):
        return None
    return number if math.isfinite(number) else None


def _values(rows: Sequence[Mapping[str, str]], steps: Sequence[float | None], column: str) -> dict[int, float]:
    found = {}
    for row, step in zip(rows, steps, strict=True):
        value = _number(row.get(column))
        if value is not None and step is not None and step >= 0 and step.is_integer():
            found[int(step)] = value
    return found


def _several_an_epoch(rows: Sequence[Mapping[str, str]], column: str) -> bool:
    """Whether it was logged within epochs, and not as the mean of each at its end."""
    epochs = [row.get("epoch") for row in rows if _number(row.get(column)) is not None]
    return len(set(epochs)) < len(epochs)
