"""One run, measured towards references: what commands do before they report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from trajcheck.audit.findings import Audit
from trajcheck.errors import RunError, UsageError
from trajcheck.files.kept_vectors import Workspace
from trajcheck.files.prints import FilePrints
from trajcheck.measuring.audited import load_audited
from trajcheck.measuring.cost import Cost, cost
from trajcheck.measuring.measured_columns import MeasuredColumns, ReplayFacts, ResolvedReferences
from trajcheck.measuring.needs import Request
from trajcheck.measuring.options import Options
from trajcheck.measuring.portions import LAGGED, REPLAYED, SECOND, STORED, Measurement, Portion
from trajcheck.measuring.precision import ReplayPrecision, expected_precision, tried
from trajcheck.measuring.which_objective import Choice, choose, need_losses, say_beforehand
from trajcheck.metrics.averaging import Averaging, tzc_v1
from trajcheck.metrics.families import FAMILIES, Family, choose_families
from trajcheck.metrics.resolution import Rounding
from trajcheck.objective.common.names import choice_of, common_objective
from trajcheck.objective.exported_modes import EXPORTED, with_program
from trajcheck.progress_bar import progress_bar
from trajcheck.readable import some_of
from trajcheck.replay.plan import Plan, rows_twice, second_dtype
from trajcheck.runs.logs.log_choice import log_of
from trajcheck.runs.optimizer_memory import skip_of
from trajcheck.runs.references import Reference, resolve_references
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.averages import averages_of, in_groups
from trajcheck.scalars.rows import Rows, choose_rows, parse_steps
from trajcheck.scalars.saved.keys import Identity
from trajcheck.scalars.saved.store import ScalarStore
from trajcheck.scalars.values import LagScalars, RowScalars
from trajcheck.tables.averages import Averaged
from trajcheck.tables.samples import Measured
from trajcheck.tables.source import Floor, Source


class MeasuredRun:
    """A run that is open, with the options of its analysis; what its methods find they return.

    `trajectory` is the run where it is open already; `families` are measured in place of those that the options name;
    `device` is where to replay if the options leave it open; `choice` the loss, where that is decided already.
    `options` are then those with that loss.
    """

    def __init__(
        self,
        run: Path,
        options: Options,
        quiet: bool,
        *,
        trajectory: Trajectory | None = None,
        families: Mapping[str, Family] | None = None,
        deep: bool = False,
        device: str | None = None,
        choice: Choice | None = None,
        audit: Audit | None = None,
    ) -> None:
        self.families = choose_families(options.metrics) if families is None else families
        self.choice = choice or choose(
            options.objective,
            [run],
            asked=_asks_for_losses(options),
            wanted=not options.match_permutations and need_losses(self.families.values()),
        )
        self.path, self.quiet = run, quiet
        steps = parse_steps(options.steps)
        replace(options, objective=self.choice.objective or options.objective).check()
        self.prints = FilePrints(deep)
        self.device = options.device if device is None or options.device != "auto" else device
        self.audit = audit
        if trajectory is None:
            self.trajectory, self.audit = load_audited(run, options.skip_bad, log_of(options))
        else:
            self.trajectory = trajectory
        self.trajectory = self.trajectory.with_drawn_probes(options.probe)
        self._given = options, families, deep, device
        self.options = options = replace(options, objective=self.choice.objective)
        if options.objective == EXPORTED:
            self.trajectory = with_program(self.trajectory)
        if "probe" in options.samples and not self.trajectory.probes:
            raise RunError(
                f"{run}: no probe batches were stored with this run (probe-000.safetensors); expected for --sample "
                "probe. Recorder.probe(batches) stores them, and --probe N draws some of the objective's data."
            )
        if families is None and common_objective(options.objective) and options.samples == ("own",):
            check_batches(self.trajectory)
        for pattern in options.group:
            if not any(re.search(pattern, name) for name in self.trajectory.shapes):
                names = ", ".join(list(self.trajectory.shapes)[:4])
                raise UsageError(f"--group {pattern!r} is found in no tensor's name; this run has {names}, ...")
        # raises before anything long begins where --memory is too little
        in_groups(averages_of(options.average), self.trajectory.numel, options.memory_bytes)
        self.skip = skip_of(self.trajectory, options.skip)
        self.rows = choose_rows(self.trajectory, steps, self.skip.steps)
        if self.choice.by_default and (why := _nothing_to_replay(self.rows, options)):
            self.choice = self.choice.without(why)
            self.options = options = replace(options, objective=None)
            self.trajectory = replace(self.trajectory, program_modes=None)
            self.rows = choose_rows(self.trajectory, steps, self.skip.steps)
        self.request = Request(self.trajectory, self.rows, options, self.families)

    def without_losses(self, why: str) -> MeasuredRun:
        """The same run without the program that was taken by default, for the reason given."""
        options, families, deep, device = self._given
        return MeasuredRun(
            self.path,
            options,
            self.quiet,
            trajectory=replace(self.trajectory, program_modes=None),
            families=families,
            deep=deep,
            device=device,
            choice=self.choice.without(why),
            audit=self.audit,
        )

    def resolve(self, workspace: Path) -> ResolvedReferences:
        """The references, those of other runs permuted where that was asked for; averages in files in `workspace`."""
        references = resolve_references(self.options.refs, self.trajectory, workspace, self.prints, self.options.roles)
        if not self.options.match_permutations:
            return ResolvedReferences(references)
        from trajcheck.permutations.permuted_references import permute_references

        assert self.options.objective is not None
        vectors = Workspace(workspace, self.prints)
        return ResolvedReferences(
            *permute_references(references, self.trajectory, self._objective, self.options.objective, vectors)
        )

    def measure(self, references: Sequence[Reference], store: ScalarStore | None = None) -> MeasuredColumns:
        """The columns towards some references, of each sample convention; what is not in the store is computed."""
        measurement = self.measurement(references, ScalarStore() if store is None else store)
        counts = measurement.counts()
        self.compute(measurement, measurement.portions)
        averages = self._averages(measurement)
        if (measurement.portions or averages) and (changed := self.prints.other()[0]):
            raise RunError(
                f"{some_of(changed)}: changed while the run was being read, so that nobody knows of which state its "
                "numbers are. Begin again when nothing writes there."
            )
        replay, lags, second = self._replay_facts(measurement), measurement.lags(), measurement.second()
        samples = [
            Measured(
                sample,
                tuple(
                    self._source(sample, rows, twice, replay, lags, batches)
                    for rows, twice, batches in zip(
                        draws,
                        second.get(sample) or [{}] * len(draws),
                        [measurement.batches(sample, draws), *[{}] * (len(draws) - 1)],  # once for all of them
                        strict=True,
                    )
                ),
                tuple(references),
            )
            for sample, draws in measurement.scalars().items()
        ]
        return MeasuredColumns(samples, replay, counts, averages)

    def _averages(self, measurement: Measurement) -> list[Averaged]:
        """What --average asked for; what is not saved is computed."""
        if not self.options.average:
            return []
        from trajcheck.measuring.averages import AveragesNeeds, samples_of
        from trajcheck.replay.averages.averaged_replay import AveragedReplay
        from trajcheck.replay.fitting import epsilon

        needs = AveragesNeeds(measurement.request, (), measurement.store, self.identity)
        if lacking := needs.lacking():
            dtype, second, memory = self.precision.dtype, self.second_dtype, self.options.memory_bytes
            samples = samples_of(self.options.samples)
            replay = AveragedReplay(self.trajectory, self._objective, dtype, second, needs.averages, samples, memory)
            with progress_bar("averages", len(lacking), self.quiet) as progress:
                needs.compute(replay, progress)
            measurement.evaluations += replay.evaluations
        own = epsilon(self.precision.dtype, self.trajectory)
        return needs.tables(Rounding(own, max(own, self._second_epsilon)))

    def measurement(self, references: Sequence[Reference], store: ScalarStore) -> Measurement:
        """What is to be measured towards some references, and what of it the store lacks."""
        request = self._request_in(self.precision) if self.options.objective else self.request
        store.watch(lambda: self.prints.other() == ([], []))
        return Measurement(request, references, store, self.identity)

    def _request_in(self, precision: ReplayPrecision) -> Request:
        """The request, with as many rows in a second precision as that of the replay asks for."""
        return replace(self.request, twice=rows_twice(precision.dtype))

    def compute(self, measurement: Measurement, portions: Sequence[Portion]) -> None:
        """Measure some portions, into the store of the measurement."""
        if self.choice.by_default:
            self._say_beforehand(measurement.references, portions)
        make = {REPLAYED: self._make_replay, SECOND: self._make_second}
        replays = measurement.replays(make, portions)
        words = {STORED: "reading", REPLAYED: "replaying", SECOND: "rounding", LAGGED: "memory"}
        for kind, label in words.items():
            mine = [portion for portion in portions if portion.kind == kind]
            if not mine:
                continue
            rows = sum(len(portion.places) for portion in mine)
            measured = kind in (STORED, REPLAYED)
            size = partial(self._bytes, kind, measurement.references, rows) if measured else None
            with progress_bar(label, rows, self.quiet, size=size) as progress:
                for portion in mine:
                    measurement.compute(portion, replays.get(portion), progress)

    def _say_beforehand(self, references: Sequence[Reference], portions: Sequence[Portion]) -> None:
        rows = sum(len(portion.places) for portion in portions if portion.kind == REPLAYED)
        if rows and not self.quiet:
            share = rows / len(self.rows.work)
            say_beforehand(self.path, self.cost(references), self._objective.seconds, self.quiet, min(share, 1.0))

    def _bytes(self, kind: str, references: Sequence[Reference], rows: int) -> int:
        """About how many bytes so many rows of one kind of work read."""
        whole = self.cost(references)
        return (whole.stored_bytes if kind == STORED else whole.replay_bytes) * rows // len(self.rows.work)

    @cached_property
    def identity(self) -> Identity:
        """What the scalars' keys stand for."""
        objective = self._objective
        if objective is None:
            return self._files
        from trajcheck.replay.fitting import identity_of

        dtype, device = self.precision.dtype, self.options.device
        second = self.second_dtype
        return replace(
            self._files,
            replay=identity_of(objective, dtype, device, self.request.plan),
            second=identity_of(objective, second, device, self.request.second_plan) if second else "",
        )

    @cached_property
    def precision(self) -> ReplayPrecision:
        """In which precision losses are replayed, and why; loads the objective, and tries it."""
        from trajcheck.objective.devices import slow_in_double
        from trajcheck.replay.two_precisions.trial import trial

        slow = slow_in_double(self._objective.device)
        return tried(self.expected_precision, partial(trial, self._objective, self.trajectory), slow)

    @cached_property
    def expected_precision(self) -> ReplayPrecision:
        """The same as far as headers tell."""
        options = self.options
        return expected_precision(self.trajectory, self.rows.rows, options.replay_dtype, options.samples)

    @property
    def second_dtype(self) -> str | None:
        """In which some rows are replayed too."""
        return second_dtype(self.trajectory, self.precision.dtype)

    @cached_property
    def _files(self) -> Identity:
        return Identity(self.trajectory, self.prints)

    def _replay_facts(self, measurement: Measurement) -> ReplayFacts | None:
        """How losses were replayed; None where they were not."""
        objective = self._objective
        if objective is None:
            return None
        from trajcheck.replay.fitting import epsilon
        from trajcheck.replay.replay_doubts import buffer_doubts, modes_of_steps

        dtype = self.precision.dtype
        return ReplayFacts(
            dtype,
            self.precision.why,
            measurement.devices() or str(objective.device),
            epsilon(dtype, self.trajectory),
            objective.note or None,
            measurement.evaluations and measurement.evaluations + self.precision.evaluations,
            measurement.randomness(),
            measurement.weighing() or None,
            modes_of_steps(self.trajectory, objective),
            buffer_doubts(self.trajectory, objective, measurement.references, self.options.samples),
            measurement.second_facts(self.second_dtype),
            objective.facts,
        )

    def prepare_replay(self, references: Sequence[Reference]) -> Any:
        """The replay of all rows towards some references; needs an objective."""
        return self._make_replay(self.rows, references, self.request.plan)

    @property
    def sources(self) -> Mapping[str, str]:
        """The files of the objective's code, with their hashes."""
        return {} if self._objective is None else self._objective.sources

    def content_of(self, steps: Sequence[int]) -> str:
        """What the files of some steps hold, as far as their names, sizes and times tell; nothing is loaded for it."""
        return self._files.of_steps(steps)

    def _make_replay(self, rows: Rows, references: Sequence[Reference], plan: Plan) -> Any:
        from trajcheck.replay.replay import Replay

        return Replay(self.trajectory, rows, references, self._objective, self.precision.dtype, plan)

    def _make_second(self, rows: Rows, references: Sequence[Reference], plan: Plan) -> Any:
        from trajcheck.replay.two_precisions.second_replay import SecondReplay

        assert self.second_dtype is not None
        return SecondReplay(self.trajectory, rows, references, self._objective, self.second_dtype, plan)

    def _source(
        self,
        sample: str,
        scalars: Mapping[int, RowScalars],
        second: Mapping[int, RowScalars],
        replay: ReplayFacts | None,
        lags: Mapping[int, Sequence[Sequence[LagScalars | str]]],
        batches: Mapping[int, Sequence[RowScalars]],
    ) -> Source:
        """What columns on one sample are made from."""
        return Source(
            self.trajectory,
            self.rows,
            scalars,
            skip=self.skip,
            smoothing=self.options.smoothing,
            epsilon=replay.epsilon if replay else None,
            ref_gradients=self.options.ref_gradients,
            curvature=self.request.curvature,
            ends=self.options.curvature_ends,
            sample=sample,
            path_integral=bool(self.options.path_points),
            averaging=self.averaging,
            lags=lags,
            second=second,
            second_epsilon=self._second_epsilon,
            floor=self.floor,
            batches=batches,
            tail_index=self.options.tail_index,
        )

    @cached_property
    def floor(self) -> Floor:
        """What no loss is below, as far as that is known."""
        if self.options.loss_floor is not None:
            return Floor(self.options.loss_floor, True)
        return Floor(0.0 if self._objective is not None and self._objective.never_negative else None)

    @cached_property
    def _second_epsilon(self) -> float:
        """That of the precision in which rounding is measured; 0 without one."""
        if self._objective is None or self.second_dtype is None:
            return 0.0
        from trajcheck.replay.fitting import epsilon

        return epsilon(self.second_dtype, self.trajectory)

    def cost(self, references: Sequence[Reference] | None = None, *, precision: ReplayPrecision | None = None) -> Cost:
        """What `measure` towards these references, or those of the options, would read and evaluate if nothing were
        saved yet. `precision` is that of the replay where it is known; else the objective is loaded to find it."""
        if references is None:
            references = resolve_references(self.options.refs, self.trajectory, None, roles=self.options.roles)
        if precision is None:
            precision = self.expected_precision if self.options.objective is None else self.precision
        second = second_dtype(self.trajectory, precision.dtype)
        found = cost(
            self.trajectory,
            self.rows,
            references,
            self.request.plan,
            self.options,
            precision=precision,
            second=(second, self.request.second_plan, self.rows.some(self._request_in(precision).second))
            if second
            else None,
            windows="window_dot_ref" in self.request.reference_products,
            neighbours=bool(self.request.vectors & {"previous", "next", "skip", "first"}),
        )
        return replace(found, replayed=self.choice.in_words)

    @cached_property
    def averaging(self) -> Averaging:
        """How quantities are averaged along the run."""
        if self.options.convention is None:
            return Averaging()
        epochs = [self.trajectory.snapshots[row.place].epoch for row in self.rows.rows]
        known = [epoch for epoch in epochs if epoch is not None]
        # the closing iterate has none: it is in the epoch of the step before it
        filled = [known[-1] if epoch is None and known else epoch for epoch in epochs]
        return tzc_v1(None if None in filled else np.array(filled))

    @cached_property
    def _objective(self) -> Any:
        """None where there is none. In float64 where symmetries are checked first; the replay converts it."""
        if self.options.objective is None:
            return None
        from trajcheck.objective.loading import load_objective

        first = "float64" if self.options.match_permutations else self.expected_precision.own
        return load_objective(
            self.options.objective,
            run=self.path,
            device=self.device,
            dtype=first,
            trajectory=self.trajectory,
            choice=choice_of(self.options),
        )


def check_batches(trajectory: Trajectory) -> None:
    """Raise RunError for a run of which no step has a sample of its own to replay, as of somebody else's archive."""
    if not trajectory.has_batches:
        raise RunError(
            f"{trajectory.path}: none of its {len(trajectory.steps)} steps holds a batch, so nothing can be replayed "
            "on own samples. Give --sample probe --probe N, which draws N batches of the objective's data "
            "for every step, or --sample full, for all of them."
        )


def _asks_for_losses(options: Options) -> bool:
    """Whether something that is computed of replayed losses alone was named; units of hidden layers are no affair of an
    exported program."""
    if options.match_permutations:
        return False
    named = (FAMILIES[name] for name in options.metrics)
    return bool(options.replaying()) or options.samples != ("own",) or need_losses(named)


def _nothing_to_replay(rows: Rows, options: Options) -> str:
    """Why no row has a sample; '' where one has."""
    reasons = [row.no_sample_of(sample) for row in rows.rows for sample in options.samples]
    return "" if "" in reasons else reasons[0]
