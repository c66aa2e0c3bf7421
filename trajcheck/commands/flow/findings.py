"""What a gradient flow found, on its way into a report: columns, the bound, what to warn of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajcheck.commands.flow.integrate import ABSOLUTE
from trajcheck.commands.flow.options import FlowOptions
from trajcheck.files.extents import EPSILON
from trajcheck.metrics.columns import Column, column
from trajcheck.metrics.formulas.other_tables.flow import Bound, bound, constant_rate, wanted_rate
from trajcheck.readable import percent_text
from trajcheck.reports.making.csv_table import CsvTable
from trajcheck.reports.making.folder import ReportFolder
from trajcheck.reports.making.headline import last
from trajcheck.reports.making.publishing import publish, steps_left_out, summary_of
from trajcheck.reports.making.recording_warnings import recording_warnings
from trajcheck.reports.making.results import FlowReport
from trajcheck.reports.making.warnings import (
    FIDELITY,
    FIDELITY_EPSILONS,
    data_set_warning,
    left_out_warning,
    rounding_warning,
)
from trajcheck.runs.optimizer_settings import RunSettings
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import Trajectory
from trajcheck.tables.flow import flow_columns

if TYPE_CHECKING:
    from trajcheck.commands.flow.integrated import Integrated


#: Share of flow_dist from which on the integrator's error is worth a warning.
ERROR_SHARE = 0.1


@dataclass(frozen=True)
class FlowFindings:
    """`snapshots` are the records from the start on, `times` their tau since then (None where none was recorded)."""

    run: Path
    options: FlowOptions
    trajectory: Trajectory
    snapshots: Sequence[Snapshot]
    taus: Sequence[float | None]
    times: Sequence[float | None]
    curvature: Sequence[bool]
    done: Integrated
    replay: Mapping[str, Any]
    doubts: Mapping[str, Any]

    @cached_property
    def steps(self) -> list[int]:
        return [snapshot.step for snapshot in self.snapshots]

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The columns of flow.csv, in their order."""
        limit = None
        if self.bound is not None:
            eta, reason = self.rate
            limit = column([None] * len(self.steps), reason) if eta is None else self.bound.at(eta)
        return flow_columns(self.done.rows, self._tau, self.done.missing, self.curvature, limit)

    @property
    def _tau(self) -> Column:
        return column(self.taus, list(map(self.trajectory.no_tau, self.snapshots)))

    @cached_property
    def bound(self) -> Bound | None:
        """The bound, where curvature was asked for."""
        if not any(self.curvature):
            return None
        columns = flow_columns(self.done.rows, self._tau, self.done.missing, self.curvature)
        return bound(np.array([np.nan if time is None else time for time in self.times]), columns)

    @cached_property
    def rate(self) -> tuple[float | None, str]:
        """The run's constant learning rate, or why there is none."""
        rates: list[float | None] = []
        for snapshot in self.snapshots[:-1]:  # that of the last record leads away from it
            if snapshot.lr and len(set(snapshot.lr)) > 1:
                return None, "parameter groups differ in lr"
            rates.append(snapshot.lr[0] if snapshot.lr else None)
        return constant_rate(self.steps, self.taus, rates)

    def report(self, folder: ReportFolder) -> FlowReport:
        """Write everything into the folder."""
        table, summary = CsvTable("flow", self.trajectory.steps), self.summary()
        table.add({"step": self.steps}, self.columns)
        frames = publish(folder, {"flow": table}, summary)
        return FlowReport(folder.path, **frames, summary=summary, incomplete=summary["incomplete"])

    def incomplete(self) -> list[str]:
        """What was asked for and could not be computed."""
        found = [f"{self.trajectory.ended}: followed up to there"] if self.trajectory.ended else []
        if self.done.ended:
            found.append(self.done.ended)
        if any(self.curvature) and not self.columns["lambda_max"].defined.any():
            found.append("--curvature: no eigenvalue was found; undefined.csv says why")
        if self.options.wanted_distance is not None and self.headline["wanted"]["eta"] is None:
            found.append("--wanted-distance: no bound was found from which a learning rate could follow")
        return found

    @cached_property
    def headline(self) -> dict[str, Any]:
        """The values to read first: where the run is farthest from the flow, and what the bound says."""
        distance = self.columns["flow_dist"]
        places = np.flatnonzero(distance.defined)
        top = int(places[np.argmax(distance.values[places])]) if len(places) else None
        wanted = self.options.wanted_distance
        return {
            "max_flow_dist": None if top is None else self._at("flow_dist", top),
            "max_flow_dist_step": None if top is None else self.steps[top],
            "relative_there": None if top is None else self._at("relative_flow_dist", top),
            "last_flow_dist": last(distance),
            "max_flow_error": self._max("flow_error"),
            "max_bound_estimate": self._max("bound_estimate"),
            "eta": self.rate[0],
            "wanted": None if wanted is None or self.bound is None else wanted_rate(self.bound, wanted),
        }

    def _at(self, name: str, place: int) -> float | None:
        each = self.columns[name]
        return float(each.values[place]) if each.defined[place] else None

    def _max(self, name: str) -> float | None:
        each = self.columns.get(name)
        return float(each.values[each.defined].max()) if each is not None and each.defined.any() else None

    def summary(self) -> dict[str, Any]:
        """summary.json."""
        return summary_of(
            about={"run": self._run()},
            found={"headline": self.headline, "flow": self._flow()},
            warnings=self.warnings(),
            incomplete=self.incomplete(),
            left_out=steps_left_out(self.trajectory.left_out),
            empty={"flow": [name for name, each in self.columns.items() if not each.defined.any()]},
            options=self.options,
            replayed=True,
            computed={"replay": dict(self.replay)},
        )

    def _run(self) -> dict[str, Any]:
        trajectory, info = self.trajectory, self.trajectory.info
        return {
            "path": str(self.run),
            "id": f"{trajectory.id}/flow",  # whose report it is; an analysis of the run has its bare id
            "run_id": trajectory.id,
            "recorded_steps": len(trajectory.steps),
            "first_step": self.steps[0],
            "last_step": self.steps[-1],
            "tensors": len(trajectory.shapes),
            "parameters": trajectory.numel,
            "optimizer": info.optimizer,
            "plain_sgd": trajectory.settings.plain_sgd,
        }

    def _flow(self) -> dict[str, Any]:
        """How the flow was integrated, and how far."""
        options = self.options
        atol = ABSOLUTE * options.rtol if options.atol is None else options.atol
        reached = [i for i, why in enumerate(self.done.missing) if not why]
        return {
            "method": "RK45",
            "rtol": [options.rtol, options.rtol / 2],
            "atol": [atol, atol / 2],
            "state_dtype": "float64",
            "sample": self.replay["sample"],
            "gradient_evaluations": self.done.evaluations,
            "last_step_reached": self.steps[reached[-1]] if reached else None,
            "last_tau_reached": self.taus[reached[-1]] if reached else None,
            "ended": self.done.ended or None,
            "resumed_at_step": self.done.resumed_at,
            **self.doubts,
        }

    def warnings(self) -> list[str]:
        """What a reader of the numbers should know first."""
        settings, sample = RunSettings(self.trajectory.info, self.snapshots), self.replay["sample"]
        found: list[str | None] = list(self.done.notes)
        reasons = []
        if settings.plain_sgd is False:
            name = self.trajectory.info.optimizer
            ascends = ", which ascends (maximize=True)" if settings.ascends else ""
            reasons.append(f"its optimizer is {name}{' with momentum' if settings.heavy_ball else ''}{ascends}")
        if settings.weight_decay:
            reasons.append("it has weight decay, which the flow leaves out")
        if self.doubts["clipped"]:
            reasons.append("its gradients were clipped")
        extents = (*self.snapshots[0].parameters.values(), *self.snapshots[0].gradients.values())
        epsilon = max(self.replay["epsilon"], *(EPSILON[extent.dtype] for extent in extents))
        gap = self.doubts["recorded_gradient_disagreement"]
        if gap is not None and gap > max(FIDELITY, FIDELITY_EPSILONS * epsilon):
            apart = percent_text(gap, 3)
            reasons.append(f"its gradient at step {self.steps[0]} differs by {apart} from the one on sample {sample}")
        if reasons:
            found.append(
                f"the run is not gradient descent on sample {sample}: {'; '.join(reasons)}. The flow is that of the "
                "plain loss on that sample, and flow_dist is more than a step-size error"
            )
        elif settings.plain_sgd is None:
            found.append("the optimizer is unknown: whether the run is gradient descent was not checked")
        if self.doubts["random"]:
            found.append("the loss draws random numbers (dropout): the flow keeps to one draw, the same at every time")
        errors, distances = self.columns["flow_error"], self.columns["flow_dist"]
        both = errors.defined & distances.defined & (errors.values > 0)
        if near := int((errors.values[both] > ERROR_SHARE * distances.values[both]).sum()):
            found.append(
                f"flow_error is over {100 * ERROR_SHARE:.0f}% of flow_dist at {near} of {int(both.sum())} times: "
                "give a smaller --rtol"
            )
        found += recording_warnings(self.trajectory)
        found += [left_out_warning(self.trajectory.left_out), rounding_warning(extents)]
        found.append(data_set_warning(self.replay.get("data_set")))
        return [warning for warning in found if warning]
