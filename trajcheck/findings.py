"""What an analysis found, on its way into a report: columns that were asked for, what is missing, what to warn of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from trajcheck.columns import Column
from trajcheck.metrics.families import Family
from trajcheck.options import Options
from trajcheck.references import Reference
from trajcheck.reports.folder import SUMMARY, ReportFolder
from trajcheck.reports.frames import table_frame, undefined_rows
from trajcheck.reports.summary import DEFINITIONS, fidelity_warning, headline, versions
from trajcheck.snapshot import EPSILON
from trajcheck.tables.references import reference_columns
from trajcheck.tables.source import NOT_FINITE, Source
from trajcheck.tables.steps import step_columns

#: The sample convention of every row: z_t, the step's own.
OWN = "own"

#: Steps after which momentum of 0.9 has forgotten a gradient.
LASTING = 50

_STEP_BASE = ("prev_step", "stride", "weight", "tau", "lr", "loss")
_REFERENCE_BASE = ("weight", "loss")
_CURVATURE = (
    *("lambda_max", "lambda_max_residual", "lambda_min", "lambda_min_residual"),
    *("grad_curvature", "stability_threshold"),
)
_FIDELITY = ("replay_loss_error", "replay_grad_error")


@dataclass(frozen=True)
class Report:
    """What an analysis gave: the tables as they stand in the CSV files, the summary, and the folder that holds them.

    `incomplete` lists what was explicitly asked for and could not be computed.
    """

    folder: Path
    steps: pd.DataFrame
    references: pd.DataFrame
    undefined: pd.DataFrame
    summary: dict[str, Any]
    incomplete: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Findings:
    """`replay` says how losses were replayed, None if they were not."""

    run: Path
    options: Options
    families: Mapping[str, Family]
    references: Sequence[Reference]
    source: Source
    replay: Mapping[str, Any] | None

    @cached_property
    def own(self) -> dict[str, Column]:
        """The columns of steps.csv that were asked for, in the order of the contract."""
        more = (*(_CURVATURE if self.source.curvature else ()), *(_FIDELITY if self.replay else ()))
        return self._chosen(step_columns(self.source), "step_columns", (*_STEP_BASE, *self._grad_norm, *more))

    @cached_property
    def towards(self) -> dict[str, dict[str, Column]]:
        """Those of references.csv, by the reference as it was given."""
        base = (*_REFERENCE_BASE, *self._grad_norm)
        return {
            reference.spec: self._chosen(reference_columns(self.source, number, reference), "reference_columns", base)
            for number, reference in enumerate(self.references)
        }

    @property
    def _grad_norm(self) -> tuple[str, ...]:
        return ("grad_norm",) if any("grad_sq" in family.step_products for family in self.families.values()) else ()

    def _chosen(self, columns: Mapping[str, Column], of: str, base: Sequence[str]) -> dict[str, Column]:
        wanted = {*base, *(name for family in self.families.values() for name in getattr(family, of))}
        return {name: each for name, each in columns.items() if name in wanted}

    def report(self, folder: ReportFolder) -> Report:
        """Write everything into the folder."""
        steps = [row.step for row in self.source.rows.rows]
        recorded = self.source.trajectory.steps
        undefined = undefined_rows("steps", "", OWN, steps, recorded, self.own)
        for spec, columns in self.towards.items():
            undefined += undefined_rows("references", spec, OWN, steps, recorded, columns)
        filled = {name for columns in self.towards.values() for name, each in columns.items() if each.defined.any()}
        frames = {
            "steps": table_frame({"step": steps, "sample": OWN}, self.own, after="weight"),
            "references": pd.concat(
                [
                    table_frame({"step": steps, "ref": spec, "sample": OWN}, columns, keep=filled)
                    for spec, columns in self.towards.items()
                ],
                ignore_index=True,
            ),
            "undefined": pd.DataFrame(undefined, columns=["table", "column", "ref", "sample", "steps", "reason"]),
        }
        incomplete = self.incomplete()
        summary = self.summary(incomplete)
        texts = {f"{name}.csv": frame.to_csv(index=False, lineterminator="\n") for name, frame in frames.items()}
        folder.publish({**texts, SUMMARY: json.dumps(summary, indent=2, allow_nan=False) + "\n"})
        return Report(folder.path, **frames, summary=summary, incomplete=incomplete)

    def incomplete(self) -> list[str]:
        """What was explicitly asked for and could not be computed."""
        source = self.source
        found = [f"{self.source.trajectory.ended}: analyzed up to there"] if self.source.trajectory.ended else []
        if source.epsilon is not None and not any(each.replayed for each in source.own):
            why = self.source.rows.rows[0].no_sample or NOT_FINITE
            found.append(f"--objective: nothing could be replayed; {why}")
        if not self.options.objective:
            found += [
                f"--metrics {name}: its losses need --objective FILE.py:NAME"
                for name in self.options.metrics
                if self.families[name].evaluations
            ]
        elif source.epsilon is not None and any(each.replayed for each in source.own):
            found += [
                f"--ref {spec}: the loss there is not finite on any step"
                for spec, columns in self.towards.items()
                if "loss_ref" in columns and not columns["loss_ref"].defined.any()
            ]
        if source.curvature and not self.own["lambda_max"].defined.any():
            found.append("--curvature: no eigenvalue was found; undefined.csv says why")
        return found

    def summary(self, incomplete: list[str]) -> dict[str, Any]:
        """summary.json."""
        trajectory, info, rows = self.source.trajectory, self.source.trajectory.info, self.source.rows
        return {
            "format": 1,
            "definitions": DEFINITIONS,
            "run": {
                "path": str(self.run),
                "id": trajectory.id,
                "recorded_steps": len(trajectory.steps),
                "first_step": trajectory.steps[0],
                "last_step": trajectory.steps[-1],
                "stride": rows.stride,
                "tensors": len(trajectory.shapes),
                "parameters": trajectory.numel,
                "optimizer": info.optimizer,
                "plain_sgd": info.plain_sgd,
            },
            "headline": {
                "sample": OWN,
                "previous": headline(self.own, rows.pair_weights),
                "references": {
                    reference.spec: {
                        "point": reference.key,
                        **headline(self.towards[reference.spec], rows.weights),
                    }
                    for reference in self.references
                },
            },
            "warnings": self.warnings(),
            "incomplete": incomplete,
            "left_out": {
                "steps": {str(step): reason for step, reason in trajectory.left_out.items()},
                "columns": {
                    "steps": sorted(name for name, each in self.own.items() if not each.defined.any()),
                    "references": sorted(
                        {name for columns in self.towards.values() for name in columns}
                        - {name for columns in self.towards.values() for name in columns if columns[name].defined.any()}
                    ),
                },
            },
            "options": asdict(self.options),
            "replay": self.replay,
            "versions": versions(self.options.objective is not None),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }

    def warnings(self) -> list[str]:
        """What a reader of the numbers should know first."""
        first = self.source.trajectory.snapshots[0]
        dtypes = {extent.dtype for each in (first.parameters, first.gradients) for extent in each.values()}
        replay_epsilon = self.replay["epsilon"] if self.replay else 0.0
        found = [fidelity_warning(self.own, max(replay_epsilon, *(EPSILON[dtype] for dtype in dtypes)))]
        if self.source.rows.stride > 1:
            found.append(f"pair quantities (steps.csv) are over chords of {self.source.rows.stride} steps")
        if self.replay and any(not words.startswith("recorded") for words in self.replay["randomness"]):
            found += [
                f"randomness of {count} steps: {words}"
                for words, count in self.replay["randomness"].items()
                if not words.startswith(("recorded", "seeded: no generator"))
            ]
        if low := {extent.dtype for extent in first.parameters.values()} & {"BF16", "F16"}:
            found.append(f"parameters were recorded in {', '.join(sorted(low))}: differences are of rounded iterates")
        info = self.source.trajectory.info
        if info.decoupled and "secant" in self.families:
            found.append("weight decay is decoupled: rsi_wd, eb_wd, cos_wd are not those of an objective's gradient")
        if info.plain_sgd is False and self.options.skip < LASTING:
            found.append(
                f"{info.optimizer} carries a gradient on for a while, so cos_skip still holds some of the step's own "
                f"term; give --skip {LASTING}"
            )
        if self.source.trajectory.left_out:
            found.append(
                f"{len(self.source.trajectory.left_out)} steps were left out; summary.json lists them with reasons"
            )
        return [warning for warning in found if warning]
