"""What an analysis found, on its way into a report: columns that were asked for, what is missing, what to warn of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trajcheck.files.extents import EPSILON
from trajcheck.measuring.audited import audit_warnings
from trajcheck.measuring.measured_columns import MeasuredColumns, ReplayFacts, ResolvedReferences
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options
from trajcheck.metrics.columns import Column
from trajcheck.metrics.families import Family
from trajcheck.metrics.quantity import REFERENCES, STEPS
from trajcheck.reports.making.allocation_table import allocation_summary, allocation_table
from trajcheck.reports.making.assumptions_table import assumptions_table
from trajcheck.reports.making.averages_table import averages_summary, averages_table, no_average
from trajcheck.reports.making.csv_table import CsvTable
from trajcheck.reports.making.folder import ReportFolder
from trajcheck.reports.making.free_cosine import COSINE, SUM, free_column
from trajcheck.reports.making.headline import (
    CONTROLLED,
    NO_COSINE,
    PARTS,
    PLAIN,
    SKIP,
    headline_cosine,
    headline_ratio,
    headline_shares,
    with_errors,
    with_hidden,
)
from trajcheck.reports.making.layers_table import layers_table
from trajcheck.reports.making.losses_table import losses_table
from trajcheck.reports.making.publishing import empty_columns, publish, steps_left_out, summary_of
from trajcheck.reports.making.recording_warnings import causes, recording_warnings
from trajcheck.reports.making.results import Report
from trajcheck.reports.making.rounding_warnings import (
    EPSILONS,
    other_function_warning,
    otherwise,
    otherwise_warning,
    unmeasured_warning,
    untold_warning,
)
from trajcheck.reports.making.schedule_table import schedule_table
from trajcheck.reports.making.stored_rounding import near_rounding_warning
from trajcheck.reports.making.warnings import (
    data_set_warning,
    fidelity_warning,
    left_out_warning,
    not_stored_warning,
    randomness_warnings,
    rounding_warning,
    unlike,
)
from trajcheck.reports.quantities.catalogue import PREVIOUS
from trajcheck.reports.reading.report import OPTIONAL
from trajcheck.runs.references import Reference
from trajcheck.runs.trajectory import Trajectory
from trajcheck.tables.ledger import frontiers, ledger
from trajcheck.tables.needed import needed
from trajcheck.tables.reference_operands import weights_with_skip
from trajcheck.tables.samples import Measured, chosen
from trajcheck.tables.scale import ScaleInvariant, scale_invariant
from trajcheck.tables.schedule.bound_rows import Schedule, schedule
from trajcheck.tables.source import NOT_FINITE, Source

if TYPE_CHECKING:
    from trajcheck.commands.analyze.plane import Plane

#: Share of |x_t - x*|^2 in scale-invariant tensors from which distances are called doubtful.
SCALE_SHARE = 0.1
EIGENVALUES = ("lambda_max", "lambda_min")


@dataclass(frozen=True)
class Findings:
    """What `run` was measured to be towards `resolved` references; `plane` is None where nobody asked for it."""

    run: MeasuredRun
    resolved: ResolvedReferences
    columns: MeasuredColumns
    plane: Plane | None = None

    @property
    def options(self) -> Options:
        return self.run.options

    @property
    def families(self) -> Mapping[str, Family]:
        return self.run.families

    @property
    def references(self) -> Sequence[Reference]:
        return self.resolved.points

    @property
    def measured(self) -> Sequence[Measured]:
        return self.columns.samples

    @property
    def replay(self) -> ReplayFacts | None:
        return self.columns.replay

    @property
    def source(self) -> Source:
        """The first sample's source, for what all have in common."""
        return self.measured[0].sources[0]

    @property
    def trajectory(self) -> Trajectory:
        return self.source.trajectory

    @cached_property
    def own(self) -> dict[str, dict[str, Column]]:
        """The columns of steps.csv that were asked for, in the order of the contract, by sample."""
        return {each.sample: chosen(STEPS, each.own, self.families) for each in self.measured}

    @cached_property
    def towards(self) -> dict[str, dict[str, dict[str, Column]]]:
        """Those of references.csv, by sample and by the reference as it was given."""
        return {
            each.sample: {spec: chosen(REFERENCES, columns, self.families) for spec, columns in each.towards.items()}
            for each in self.measured
        }

    def report(self, folder: ReportFolder) -> Report:
        """Write everything into the folder."""
        summary = self.summary()
        frames = publish(folder, self.tables(), summary, optional=OPTIONAL)
        return Report(folder.path, **frames, summary=summary, incomplete=summary["incomplete"])

    def _other_samples(self, sample: str) -> str:
        """What can be done where no step has a sample of its own."""
        if sample != "own" or self.trajectory.has_batches:
            return ""
        return ". --sample probe --probe N draws N batches of the objective's data for every step"

    def tables(self) -> dict[str, CsvTable]:
        """The CSV files, by name."""
        steps = [row.step for row in self.source.rows.rows]
        tables = {
            "steps": CsvTable("steps", self.trajectory.steps, late="sample", after=("weight",)),
            "references": CsvTable("references", self.trajectory.steps),
        }
        for sample, columns in self.own.items():
            tables["steps"].add({"step": steps, "sample": sample}, columns)
        for spec in (reference.spec for reference in self.references):
            for sample, each in self.towards.items():
                tables["references"].add({"step": steps, "ref": spec, "sample": sample}, each[spec])
        tables["assumptions"] = assumptions_table(ledger(self.measured, self.families.values()))
        if self.schedule is not None:
            tables["schedule"] = schedule_table(self.trajectory, self.schedule)
        if self.options.layers or self.options.group:
            tables["layers"] = layers_table(self.measured, self.families, self.options.group)
        if self.allocation is not None:
            tables["allocation"] = self.allocation
        if self.columns.averages:
            tables["averages"] = averages_table(self.columns.averages)
        if self.plane is not None:
            tables["trajectory"] = self.plane.table
        if self.losses is not None:
            tables["losses"] = self.losses
        return tables

    @cached_property
    def allocation(self) -> CsvTable | None:
        """What each tensor made of the loss's change, where that was asked for."""
        if not self.options.allocate:
            return None
        return allocation_table(self.measured, self.families, self.options.group)

    @cached_property
    def losses(self) -> CsvTable | None:
        """The losses of all steps, where a log beside the records has them."""
        return losses_table(self.trajectory)

    @cached_property
    def schedule(self) -> Schedule | None:
        """The last-iterate bound towards every reference."""
        return schedule(self.measured, self.families.values())

    def incomplete(self) -> list[str]:
        """What was explicitly asked for and could not be computed."""
        found = [f"{self.trajectory.ended}: analyzed up to there"] if self.trajectory.ended else []
        if not self.options.objective:
            found += [
                f"--metrics {name}: its losses need --objective FILE.py:NAME"
                for name in self.options.metrics
                if needed([self.families[name]]).evaluations
            ]
        found += self._not_replayed() if not self.run.choice.by_default else []
        if self.unlike:
            found.append(f"--objective: {self.unlike}")
        if self.plane is not None and self.plane.facts["explained"][1] is None:
            found.append("--pca: the iterates do not span a plane; undefined.csv says why")
        found += no_average(self.columns.averages)
        for lag in self.options.lags:
            columns = (each.get(f"memory_{lag}") for each in self.towards["own"].values())
            if not any(_any_value(each) for each in columns):
                found.append(f"--memory-lags {lag}: no row has one; undefined.csv says why")
        return found

    @cached_property
    def unlike(self) -> str:
        """By how much the replay is not the training, in words; '' where it is."""
        return unlike(self.own.get("own", {}), [row.step for row in self.source.rows.rows])

    def _not_replayed(self) -> list[str]:
        """What was to be replayed, and nowhere could be."""
        found = []
        for each in self.measured if self.replay else ():
            source, sample = each.sources[0], each.sample
            which = "" if self.options.samples == ("own",) else f" on sample {sample}"
            if not any(scalars.replayed for scalars in source.own):
                why = next((reason for reason in source.no_replay if reason), NOT_FINITE)
                found.append(f"--objective: nothing could be replayed{which}; {why}{self._other_samples(sample)}")
                continue
            found += [
                f"--ref {spec}: the loss there is not finite on any step{which}"
                for spec, columns in self.towards[sample].items()
                if "loss_ref" in columns and not columns["loss_ref"].defined.any()
            ]
            if source.path_integral and not _any_value(self.own[sample].get("path_integral")):
                found.append(f"--path-integral: no row has one{which}; undefined.csv says why")
            found += [
                f"--curvature: {end} was found on no row{which}; undefined.csv says why"
                for end in EIGENVALUES
                if end in self.own[sample] and not self.own[sample][end].defined.any()
            ]
        return found

    @cached_property
    def headline(self) -> dict[str, Any]:
        """The values to read first: of the primary sample, with the cosine of the sample that tells most."""
        samples = {each.sample: self._headline(each) for each in self.measured}
        result = {"sample": self.options.primary, **deepcopy(samples[self.options.primary])}
        for spec, values in result["references"].items():
            offers = {sample: head["references"][spec] for sample, head in samples.items()}
            best = next(
                (offers[name] for name in ("probe", "full") if name in offers and _cosine(offers[name])), values
            )
            values |= {key: best[key] for key in NO_COSINE}
        return result if len(samples) == 1 else {**result, "samples": samples}

    def _headline(self, each: Measured) -> dict[str, Any]:
        rows, sample = self.source.rows, each.sample
        weights = rows.point_weights(sample)
        own = sample in ("own", "previous")  # a batch a step
        references = {}
        for reference in self.references:
            columns = with_hidden(self.towards[sample][reference.spec], each.towards[reference.spec])
            draws = each.each_towards[reference.spec] if sample == "probe" else ()
            num, free, missing = self._free(SUM, reference, sample)
            nothing = sample == "own" and not free.defined.any() and _any_value(columns.get("convexity_num"))
            references[reference.spec] = {
                "point": reference.key,
                "dependence": asdict(reference.dependence),
                **headline_cosine(
                    self._free(COSINE, reference, sample),
                    {COSINE[0]: weights, COSINE[1]: weights_with_skip(rows, reference)},
                    sample,
                    draws,
                ),
                **headline_ratio(
                    columns,
                    SKIP if num == SUM[1] else PLAIN,
                    along=own and not rows.steps_thinned,
                    missing=missing if nothing else "",
                ),
                **headline_shares(columns, weights),
                "judged_otherwise": self.judged_otherwise.get((reference.spec, sample)),
            }
        columns = with_hidden(self.own[sample], each.own)
        fixed = each.sources[0].fixed
        previous = {
            **NO_COSINE,
            **headline_ratio(
                columns,
                CONTROLLED if _any_value(columns.get(PARTS[CONTROLLED][0])) else PLAIN,
                along=own and not rows.updates_thinned,
            ),
            **headline_shares(columns, rows.pair_weights(sample)),
            **with_errors(columns, "loss_change_sum"),
            **(with_errors(columns, "known_change", "loss_change_known", rows=False) if fixed else {}),
            "judged_otherwise": self.judged_otherwise.get((PREVIOUS, sample)),
        }
        return {"previous": previous, "references": references}

    def _free(self, names: tuple[str, str], reference: Reference, sample: str) -> tuple[str, Column, str]:
        steps = [row.step for row in self.source.rows.rows]
        columns = self.towards[sample][reference.spec]
        return free_column(names, columns, steps, sample, reference.dependence, self.source.skip)

    def summary(self) -> dict[str, Any]:
        """summary.json."""
        return summary_of(
            about={"run": self._run()},
            found={
                "headline": self.headline,
                "permutations": self._permutations(),
                "trajectory": None if self.plane is None else self.plane.facts,
                "scale_invariant": None if self.scale is None else asdict(self.scale),
                "audit": None if self.run.audit is None else self.run.audit.as_json(),
                **({} if self.allocation is None else {"allocation": allocation_summary(self.allocation)}),
                **averages_summary(self.columns.averages),
                **({} if self.schedule is None else {"schedule": dict(self.schedule.facts)}),
                **({} if self.losses is None else {"losses": {"rows": len(self.losses.parts[0].steps)}}),
                **({"alpha_beta": found} if (found := frontiers(self.measured)) else {}),
            },
            warnings=self.warnings(),
            incomplete=self.incomplete(),
            left_out=steps_left_out(self.trajectory.left_out),
            empty={
                "steps": empty_columns(self.own.values()),
                "references": empty_columns(columns for each in self.towards.values() for columns in each.values()),
            },
            options=self.options,
            replayed=self.options.objective is not None,
            computed={
                "replay": self.replay and self.replay.in_summary,
                "scalars": asdict(self.columns.rows),
            },
        )

    def _permutations(self) -> dict[str, Any] | None:
        """How the units of each reference were put in order; None where that was not asked for."""
        matchings = self.resolved.matchings
        return None if matchings is None else {spec: asdict(each) for spec, each in matchings.items()}

    def _run(self) -> dict[str, Any]:
        trajectory, info, rows = self.trajectory, self.trajectory.info, self.source.rows
        return {
            "path": str(self.run.path),
            "id": trajectory.id,
            "recorded_steps": len(trajectory.steps),
            "first_step": trajectory.steps[0],
            "last_step": trajectory.steps[-1],
            "stride": rows.stride,
            "tensors": len(trajectory.shapes),
            "parameters": trajectory.numel,
            "optimizer": info.optimizer,
            "plain_sgd": trajectory.settings.plain_sgd,
            "skip": self.source.skip.steps,
            "user": dict(info.user),
            **({} if info.ended is None else {"ended": asdict(info.ended)}),
        }

    @cached_property
    def scale(self) -> ScaleInvariant | None:
        """The tensors whose scale does not matter, where secant quantities were asked for."""
        return scale_invariant(self.source, self.references) if "secant" in self.families else None

    def warnings(self) -> list[str]:
        """What a reader of the numbers should know first."""
        first = self.trajectory.snapshots[0]
        dtypes = {extent.dtype for each in (first.parameters, first.gradients) for extent in each.values()}
        replay_epsilon = self.replay.epsilon if self.replay else 0.0
        fidelity = self.own.get("own", {})
        steps = [row.step for row in self.source.rows.rows]
        unlike_training = fidelity_warning(
            fidelity,
            steps,
            max(replay_epsilon, *(EPSILON[dtype] for dtype in dtypes)),
            causes(self.trajectory, self.replay.randomness if self.replay else {}),
        )
        choice = self.run.choice
        audited = [] if self.run.audit is None else audit_warnings(self.run.audit)
        found = [*audited, unlike_training, choice.warning, *(self._not_replayed() if choice.by_default else [])]
        found += recording_warnings(self.trajectory, replayed=self.replay is not None)
        if self.source.rows.stride > 1:
            found.append(f"pair quantities (steps.csv) are over chords of {self.source.rows.stride} steps")
        if self.replay:
            found += randomness_warnings(self.replay.randomness, unlike_training)
            found.append(not_stored_warning(self.trajectory.info.not_stored))
            found.append(data_set_warning(self.replay.data_set))
            found += self._rounding(self.replay)
            found += self.replay.doubts
        below = (source.below_floor for each in self.measured for source in each.sources)
        found += [f"f_inf: {each}; what is measured from it is empty" for each in dict.fromkeys(below) if each][:1]
        if self.options.convention and self.options.samples != ("previous",):
            found.append(
                f"--convention {self.options.convention}: that code measures on the previous sample, this report on "
                + ", ".join(self.options.samples)
            )
        if self.options.convention and self.source.averaging.epochs is None:
            found.append(f"--convention {self.options.convention}: no epochs were recorded, so averages do not restart")
        found.append(rounding_warning(first.parameters.values()))
        sample = next(iter(self.own))
        found.append(near_rounding_warning(first.parameters.values(), self.own[sample], self.towards[sample]))
        if self.trajectory.settings.decoupled and "secant" in self.families:
            found.append("weight decay is decoupled: rsi_wd, eb_wd, cos_wd are not those of an objective's gradient")
        for spec, share in (self.scale.shares if self.scale else {}).items():
            if share is not None and share > SCALE_SHARE:
                found.append(
                    f"{100 * share:.0f}% of |x_t - x*|^2 towards {spec} lies in tensors whose scale does not matter "
                    "(summary.json names them): a normalisation follows them, and distances there mean little"
                )
        found += self._unfinished()
        found += self._no_cosine()
        found.append(left_out_warning(self.trajectory.left_out))
        return [warning for warning in found if warning]

    @cached_property
    def judged_otherwise(self) -> dict[tuple[str, str], float | None]:
        """The share of steps whose convexity a wider precision would judge otherwise, by reference and sample."""
        found: dict[tuple[str, str], float | None] = {}
        if self.replay is None or self.replay.second is None or not self._wider(self.replay):
            return found
        how = self.replay.epsilon, self.replay.second.dtype
        rows = self.source.rows
        for each in self.measured:
            for spec, columns in each.towards.items():
                found[spec, each.sample] = otherwise(columns, rows.point_weights(each.sample), *how)
            found[PREVIOUS, each.sample] = otherwise(each.own, rows.pair_weights(each.sample), *how)
        return found

    @staticmethod
    def _wider(replay: ReplayFacts) -> bool:
        """Whether the second precision is the wider one, which knows more of the signs."""
        return replay.second is not None and EPSILONS[replay.second.dtype] < replay.epsilon

    def _rounding(self, replay: ReplayFacts) -> list[str | None]:
        """What rounding leaves open."""
        if (second := replay.second) is None:
            return []
        if not self._wider(replay):
            names = replay.dtype, second.dtype
            return [
                unmeasured_warning(second.failed, *names),
                *(untold_warning(each.own, each.sample, *names) for each in self.measured),
            ]
        one = len(self.measured) == 1
        shares = {
            spec if one else f"{spec} on sample {sample}": share
            for (spec, sample), share in self.judged_otherwise.items()
        }
        return [
            unmeasured_warning(second.failed, replay.dtype, second.dtype),
            otherwise_warning(shares, replay.dtype, second.dtype) if "convexity" in self.families else None,
            *(
                other_function_warning(each.own.get("second_loss_error"), each.sample, replay.epsilon, second.dtype)
                for each in self.measured
            ),
        ]

    def _unfinished(self) -> list[str]:
        """On how many of the rows on which it was looked for an eigenvalue was not found."""
        found = []
        for sample, columns in self.own.items():
            which = "" if self.options.samples == ("own",) else f" on sample {sample}"
            for end in (name for name in EIGENVALUES if name in columns):
                tried = columns[f"{end}_residual"].defined
                if missing := int((tried & ~columns[end].defined).sum()):
                    found.append(
                        f"{end} was not found on {missing} of {tried.sum()} rows{which}: Lanczos ran out of products"
                    )
        return found

    def _no_cosine(self) -> list[str]:
        """Why no mean cosine is given towards some references on the steps' own samples, or why cos_skip, where the
        report holds it, is not free of the step's own term."""
        reasons: dict[str, list[str]] = {}
        heads = self.headline.get("samples", {self.headline["sample"]: self.headline})
        own = heads.get("own", {"references": {}})["references"]
        for spec, values in own.items():
            given = self.headline["references"][spec]["cosine"] is not None
            biased = _any_value(self.towards["own"][spec].get("cos_skip"))
            if values["cosine_missing"] and (biased or not given):
                reasons.setdefault(values["cosine_missing"], []).append(spec)
        return [
            f"no mean cosine nor convexity ratio on own samples towards {', '.join(specs)}: {why}"
            for why, specs in reasons.items()
        ]


def _cosine(values: Mapping[str, Any]) -> bool:
    return values["cosine"] is not None


def _any_value(each: Column | None) -> bool:
    return each is not None and bool(each.defined.any())
