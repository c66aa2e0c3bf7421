"""What a comparison found, on its way into a report: tables, what is missing, what to warn of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from trajcheck.commands.compare.options import ComparisonOptions
from trajcheck.files.extents import EPSILON
from trajcheck.measuring.measured_columns import MeasuredColumns
from trajcheck.measuring.which_objective import Choice
from trajcheck.metrics.columns import Column
from trajcheck.readable import some_of
from trajcheck.reports.making.csv_table import CsvTable
from trajcheck.reports.making.folder import ReportFolder
from trajcheck.reports.making.headline import last
from trajcheck.reports.making.publishing import empty_columns, publish, steps_left_out, summary_of
from trajcheck.reports.making.recording_warnings import causes, recording_warnings
from trajcheck.reports.making.results import Comparison
from trajcheck.reports.making.warnings import (
    data_set_warning,
    fidelity_warning,
    left_out_warning,
    not_stored_warning,
    randomness_warnings,
    rounding_warning,
)
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Rows
from trajcheck.tables.comparison import pair_columns, tensor_columns
from trajcheck.tables.samples import SE

if TYPE_CHECKING:
    from trajcheck.commands.compare.stages import ComparedRun


@dataclass(frozen=True)
class ComparisonFindings:
    """`rows_a` are all of run A; `columns_of` says by path what each run's own analysis gave, `line` how the losses
    along lines were taken, `choice` whose they are."""

    id: str
    options: ComparisonOptions
    a: Trajectory
    rows_a: Rows
    others: Sequence[ComparedRun]
    columns_of: Mapping[str, MeasuredColumns]
    line: Mapping[str, Any] | None
    choice: Choice

    @cached_property
    def columns(self) -> dict[str, dict[str, Column]]:
        """The columns of compare.csv, by the other run's path."""
        found = {}
        for each in self.others:
            found[each.path] = pair_columns(
                self.a,
                each.run,
                each.pairs,
                each.scalars,
                each.no_update,
                each.side_a,
                each.side_b,
                each.line,
                gap=self.options.align == "time",
            )
        return found

    def report(self, folder: ReportFolder) -> Comparison:
        """Write everything into the folder."""
        summary = self.summary()
        frames = publish(folder, self.tables(), summary, optional=("layers",))
        pairs = frames.pop("compare")
        return Comparison(folder.path, pairs, **frames, summary=summary, incomplete=summary["incomplete"])

    def tables(self) -> dict[str, CsvTable]:
        """The CSV files, by name."""
        tables = {"compare": self._table("compare")}
        for each in self.others:
            tables["compare"].add(self._keys(each), self.columns[each.path])
        if self.options.layers:
            tables["layers"] = self._layers()
        return tables

    def _table(self, name: str) -> CsvTable:
        return CsvTable(name, self.a.steps, late="interpolated", after=("tau_a", "tau_b", "tau_gap"))

    def _keys(self, other: ComparedRun) -> dict[str, Any]:
        pairs = other.pairs
        return {
            "run_a": str(self.a.path),
            "run_b": other.path,
            "step_a": [self.a.steps[pair.place_a] for pair in pairs],
            "step_b": [other.run.steps[pair.place_b] for pair in pairs],
            "interpolated": [pair.interpolated for pair in pairs],
        }

    def _layers(self) -> CsvTable:
        table = self._table("layers")
        for each in self.others:
            keys = self._keys(each)
            for tensor, shape in self.a.shapes.items():
                if numel := int(np.prod(shape, dtype=np.int64)):
                    columns = tensor_columns([scalars.tensors[tensor] for scalars in each.scalars], each.no_update)
                    table.add({**keys, "tensor": tensor, "numel": numel}, columns)
        return table

    def incomplete(self) -> list[str]:
        """What was explicitly asked for and could not be computed."""
        runs = {str(run.path): run for run in (self.a, *(each.run for each in self.others))}
        found = [f"{path}: {run.ended}: compared up to there" for path, run in runs.items() if run.ended]
        return found if self.choice.by_default else [*found, *self._not_replayed()]

    def _not_replayed(self) -> list[str]:
        """What was to be replayed, and nowhere could be."""
        found: list[str] = []
        if self.options.objective is None:
            return found
        for path, each_columns in self.columns_of.items():
            source = each_columns.samples[0].sources[0]
            if not any(scalars.replayed for scalars in source.own):
                why = next((reason for reason in source.no_replay if reason), "no loss or gradient is finite")
                found.append(f"--objective: nothing could be replayed of {path}; {why}")
        for each in self.others if self.line else ():
            column = self.columns[each.path]["barrier"]
            if not column.defined.any():
                found.append(f"--line: no loss along the line to {each.path}; {column.reasons[-1]}")
        return found

    @cached_property
    def headline(self) -> dict[str, Any]:
        """The values to read first, for each other run: at the last pair, and the largest ones."""
        return {path: self._headline(each, self.columns[path]) for each in self.others for path in [each.path]}

    def _headline(self, other: ComparedRun, columns: Mapping[str, Column]) -> dict[str, Any]:
        pairs = other.pairs
        names = ("dist", "relative_dist", "displacement_cos", "update_cos")
        values: dict[str, Any] = {
            "pairs": len(pairs),
            "interpolated": sum(pair.interpolated for pair in pairs),
            "step_a": self.a.steps[pairs[-1].place_a],
            "step_b": other.run.steps[pairs[-1].place_b],
            **{name: _at_end(columns[name]) for name in names},
            "max_dist": _largest(columns["dist"]),
            "max_relative_dist": _largest(columns["relative_dist"]),
            "convexity_ratio_a": last(columns["convexity_ratio_a"]),
            "convexity_ratio_b": last(columns["convexity_ratio_b"]),
        }
        if self.line:
            barrier = columns["barrier"]
            place = int(np.argmax(np.where(barrier.defined, barrier.values, -np.inf)))
            defined = bool(barrier.defined.any())
            values |= {
                "max_barrier": _largest(barrier),
                "max_barrier_step_a": self.a.steps[pairs[place].place_a] if defined else None,
                "last_barrier": last(barrier),
            }
            if "barrier" + SE in columns:
                error = columns["barrier" + SE]
                values["max_barrier_se"] = float(error.values[place]) if defined and error.defined[place] else None
        return values

    def summary(self) -> dict[str, Any]:
        """summary.json."""
        runs = [self.a, *(each.run for each in self.others)]
        return summary_of(
            about={"run": {"id": self.id, "path": str(self.a.path)}, "runs": [_about(run) for run in runs]},
            found={
                "headline": self.headline,
                "inits": {each.path: self._init(each) for each in self.others},
                "unmatched": {each.path: _unmatched(each) for each in self.others},
                "relabelled": [each.path for each in self.others if each.matched is not None],
                "permutations": {each.path: asdict(each.matching) for each in self.others if each.matching is not None},
                "line": self.line,
            },
            warnings=self.warnings(),
            incomplete=self.incomplete(),
            left_out={str(run.path): steps_left_out(run.left_out) for run in runs if run.left_out},
            empty=empty_columns(self.columns.values()),
            options=self.options,
            replayed=self.options.objective is not None,
            computed={"replay": self._replay()},
        )

    def _replay(self) -> dict[str, Any] | None:
        """How losses were replayed, by path; None where they were not."""
        if self.options.objective is None:
            return None
        return {path: each.replay.in_summary if each.replay else None for path, each in self.columns_of.items()}

    def _init(self, other: ComparedRun) -> dict[str, Any]:
        """Whether the inits are one; distances from it are each run's from its own first record in any case."""
        if other.one_init is None:
            steps = f"the first records are of steps {self.a.steps[0]} and {other.run.steps[0]}"
            return {"one": None, "text": f"{steps}: whether the inits are one is not known"}
        text = "both runs start from the same numbers" if other.one_init else "the runs start from different inits"
        return {"one": other.one_init, "text": text}

    def warnings(self) -> list[str]:
        """What a reader of the numbers should know first."""
        doubt = data_set_warning((self.line or {}).get("data_set"))
        found = [each for each in (doubt, self.choice.warning) if each]
        found += self._not_replayed() if self.choice.by_default else []
        if failed := (self.line or {}).get("rounding_failed"):
            found.append(f"the rounding of losses on lines could not be measured: {failed}")
        if between := (self.line or {}).get("interpolated_statistics"):
            found.append(
                f"batch statistics that are read in evaluation ({some_of(between)}) lie on the line between those of "
                "its ends, which no network has there: --mode eval computes them anew at every point"
            )
        for each in self.others:
            unmatched = each.pairing.unmatched_a, each.pairing.unmatched_b
            parts = [
                f"{len(one.steps)} of {len(one.recorded)} records of {run.path}"
                for one, run in zip(unmatched, (self.a, each.run), strict=True)
                if one.steps
            ]
            if parts:
                found.append(f"{' and '.join(parts)} have no partner; summary.json lists them")
            if each.one_init is None:
                found.append(f"{each.path}: {self._init(each)['text']}")
            marked = sum(pair.interpolated for pair in each.pairs)
            if marked:
                found.append(f"{marked} points of {each.path} lie between two records, on the line through them")
        for path, found_columns in self.columns_of.items():
            [measured] = found_columns.samples
            trajectory, stride = measured.sources[0].trajectory, measured.sources[0].rows.stride
            own: list[str | None] = []
            if stride > 1:
                own.append(f"update_cos is over chords of {stride} steps, its smallest stride")
            first, replay = trajectory.snapshots[0], found_columns.replay
            dtypes = {extent.dtype for each in (first.parameters, first.gradients) for extent in each.values()}
            if replay is not None:
                epsilon = max(replay.epsilon, *(EPSILON[dtype] for dtype in dtypes))
                steps = [row.step for row in measured.sources[0].rows.rows]
                apart = fidelity_warning(measured.own, steps, epsilon, causes(trajectory, replay.randomness))
                own += [
                    apart,
                    *randomness_warnings(replay.randomness, apart),
                    not_stored_warning(trajectory.info.not_stored),
                ]
            own += recording_warnings(trajectory, replayed=replay is not None)
            own += [rounding_warning(first.parameters.values()), left_out_warning(trajectory.left_out)]
            found += [f"{path}: {warning}" for warning in own if warning]
        return found


def _about(run: Trajectory) -> dict[str, Any]:
    return {
        "path": str(run.path),
        "id": run.id,
        "recorded_steps": len(run.steps),
        "first_step": run.steps[0],
        "last_step": run.steps[-1],
        "tensors": len(run.shapes),
        "parameters": run.numel,
        "optimizer": run.info.optimizer,
    }


def _at_end(each: Column) -> float | None:
    """The value at the last pair; None where it is undefined there."""
    return float(each.values[-1]) if each.defined[-1] else None


def _largest(each: Column) -> float | None:
    return float(each.values[each.defined].max()) if each.defined.any() else None


def _unmatched(other: ComparedRun) -> dict[str, Any]:
    return {
        side: {"records": len(one.steps), "steps": one.text, "reason": one.reason if one.steps else ""}
        for side, one in (("a", other.pairing.unmatched_a), ("b", other.pairing.unmatched_b))
    }
