"""losses.csv: the loss of every step, recorded or not, from a log of them; in stretches where there are many."""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.reports.making.csv_table import CsvTable
from trajcheck.runs.logs.all_losses import arrays, logged
from trajcheck.runs.trajectory import Trajectory

#: Rows of the table.
MOST = 1000


def losses_table(trajectory: Trajectory) -> CsvTable | None:
    """Rows of equally many steps, from `step` to `until`: the mean of the losses that are known, the least and the
    largest. None where no log has losses of single steps."""
    log = trajectory.log
    if log is None or not logged(log):
        return None
    steps, losses = arrays(log.loss)
    width = -(-(int(steps[-1]) - int(steps[0]) + 1) // MOST)
    stretch = (steps - steps[0]) // width
    rows, begins = np.unique(stretch, return_index=True)
    counts = np.diff(np.append(begins, len(steps)))
    columns = {
        "loss": np.add.reduceat(losses, begins) / counts,
        "loss_min": np.minimum.reduceat(losses, begins),
        "loss_max": np.maximum.reduceat(losses, begins),
    }
    first = steps[0] + rows * width
    last = np.minimum(first + width - 1, steps[-1])
    table = CsvTable("losses", trajectory.steps)
    reasons = np.full(len(rows), "", dtype=object)
    table.add(
        {"step": first.tolist(), "until": last.tolist()},
        {name: Column(values, reasons) for name, values in columns.items()},
    )
    return table
