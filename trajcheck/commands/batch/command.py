"""`trajcheck batch`, callable from Python: every run of an archive that is new or has changed is analyzed."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from trajcheck.commands.batch.common_figures import draw_across, pages_across
from trajcheck.commands.batch.discovery import FoundRun, find_runs
from trajcheck.commands.batch.index import index_rows, write_index
from trajcheck.commands.batch.lock import only_batch, still_ours
from trajcheck.commands.batch.options import BatchConfig, check_analysis, may_replay
from trajcheck.commands.batch.page import write_page
from trajcheck.commands.batch.remains import remove_remains
from trajcheck.commands.batch.roles import roles_of_run
from trajcheck.commands.batch.run_state import FAILED, INCOMPLETE, RunState, fingerprint, read_state
from trajcheck.commands.batch.stopping import Signalled, Stopped, stopping
from trajcheck.commands.batch.tasks import CHUNK, REPORT, REPORT_IF_SEEN, chunk_tasks, make_report, now, report_task
from trajcheck.commands.batch.while_read import Reading
from trajcheck.errors import OutputError, RunError, UsageError
from trajcheck.files.prints import FilePrints
from trajcheck.files.walking import make_folders
from trajcheck.measuring.options import Options
from trajcheck.runners import Done, Failed, Lost, Outcome, Runner, Task, make_runner
from trajcheck.runners.calls import call
from trajcheck.runners.local import LocalRunner
from trajcheck.runs.formats.recognise import known_formats, recognise
from trajcheck.runs.formats.stored_run import has_program
from trajcheck.scalars.saved import FOLDER

log = logging.getLogger("trajcheck.batch")

#: Rows of a chunk that a worker is given, without replay and with it.
ROWS, REPLAYED_ROWS = 256, 32

#: Bytes of a run from which its pass is shared out; a smaller one is done before other workers are ready for it.
LARGE = 2_000_000_000


@dataclass
class BatchResult:
    """What a batch did: runs analyzed with each status, runs left as they were, and runs left for the next call.

    `stopped`: the signal that ended it early.
    """

    out: Path
    analyzed: Counter[str] = field(default_factory=Counter)
    unchanged: int = 0
    remaining: int = 0
    stopped: int | None = None

    @property
    def complete(self) -> bool:
        """Whether all that was analyzed could be computed."""
        return not (self.analyzed[FAILED] or self.analyzed[INCOMPLETE])


@dataclass(frozen=True)
class _Job:
    """A run that is to be analyzed. `notes` are what its row is to say of it; `files` are its step files, `size` their
    bytes, about."""

    run: FoundRun
    options: Options
    out: Path
    notes: tuple[str, ...]
    files: int
    size: int

    @property
    def rows(self) -> int:
        """Of a chunk."""
        return REPLAYED_ROWS if self.replayed else ROWS

    @cached_property
    def replayed(self) -> bool:
        return may_replay(self.options, self.run.path)

    @property
    def long(self) -> bool:
        """Whether its chunks are worth sharing out."""
        return self.files > self.rows and (self.replayed or self.size > LARGE)


@dataclass
class _Chunked:
    """A run that is read chunk by chunk, of which so many are still to come."""

    job: _Job
    reading: Reading
    chunks: int


def batch(
    archives: Sequence[str | Path],
    out: str | Path = "reports",
    config: BatchConfig | None = None,
    *,
    progress: Callable[[int], Any] = lambda runs: None,
    found: Callable[[int], Any] = lambda runs: None,
) -> BatchResult:
    """Analyze the runs under some folders that are new or have changed since the last call, each into its own report
    folder below `out`, and write index.csv and index.html.

    A run that cannot be analyzed fails its row of the index, not the batch. Interrupted at any moment, the next call
    goes on from what was saved: at most `config.interval` seconds of work are lost, and the reports come out the same.
    `found` is told how many runs are to be analyzed, `progress` of each that was.

    Raises UsageError, RunError for an archive that is not there or holds no run, OutputError, HeldError where another
    batch is at work in `out`.
    """
    return _Batch([Path(each) for each in archives], Path(out), config or BatchConfig(), progress, found).run()


class _Batch:
    def __init__(
        self,
        archives: Sequence[Path],
        out: Path,
        config: BatchConfig,
        progress: Callable[[int], Any],
        found: Callable[[int], Any],
    ) -> None:
        config.check()
        self.archives, self.out, self.config = archives, out, config
        self.progress, self.found = progress, found
        self.settings = {"deep": config.deep, "plots": config.plots, "interval": config.interval}
        self.result = BatchResult(out)
        self.unchanged: dict[Path, RunState] = {}
        self.runner = make_runner(
            config.runner,
            workers=config.workers,
            devices=config.devices,
            address=config.address,
            gpus_per_task=config.gpus_per_task,
        )

    def run(self) -> BatchResult:
        runs = find_runs(self.archives, self.out, self.config.include, self.config.exclude)
        if not runs:
            where = ", ".join(map(str, self.archives))
            if any(Path(os.path.realpath(each)) == Path(os.path.realpath(self.out)) for each in self.archives):
                raise UsageError(f"--out {self.out} is the archive itself, which is not looked into. Choose another.")
            raise RunError(f"{where}: no run below, or none that the patterns leave. {known_formats()}")
        try:
            make_folders(self.out)
        except OSError as error:
            raise OutputError(f"{self.out}: cannot be made: {error.strerror}. Choose another --out.") from error
        rows = None
        current = {self.out / run.report for run in runs}
        with only_batch(self.out) as self.lease:
            remove_remains(self.out, current)
            try:
                with stopping(self.config.timeout) as self.check_stopped:
                    self._analyze(self._changed(runs))
                    rows = index_rows(self.out, self.unchanged, current)
                    draw_across(self.out, rows, self.config.plots)
            except Stopped as reason:
                self.result.stopped = reason.number if isinstance(reason, Signalled) else None
                word = str(reason) if isinstance(reason, Signalled) else "the time is up"
                level = logging.INFO if self.result.analyzed else logging.WARNING  # night after night nothing
                log.log(level, "%s: ended; the next call goes on from here", word)
            rows = index_rows(self.out, self.unchanged, current) if rows is None else rows
            write_index(self.out, rows)
            write_page(self.out, rows, list(pages_across(self.out, rows)))
        return self.result

    def _changed(self, runs: Sequence[FoundRun]) -> list[_Job]:
        """The runs that are to be analyzed."""
        jobs = []
        hashes = FilePrints(deep=True)
        wrong: dict[FoundRun, UsageError] = {}
        for run in runs:
            folder, options = self.out / run.report, self.config.options_of(run.name)
            try:
                roles = roles_of_run(options.ref_as, run.path, run.name, run.archive)
                options = replace(options, ref_as=roles.ref_as)
                check_analysis(options, own=has_program(run.path))
            except UsageError as error:
                wrong[run] = error
                continue
            state = read_state(folder)
            if (
                state
                and state.is_of(options)
                and state.holds(fingerprint(run.path, options, deep=self.config.deep), folder, hashes)
            ):
                self.result.unchanged += 1
                self.unchanged[folder] = state
                continue
            jobs.append(_Job(run, options, folder, tuple(roles.without.values()), *_extent(run.path)))
        if len(wrong) == len(runs):
            raise next(iter(wrong.values()))
        limit = self.config.max_runs
        self.result.remaining = len(jobs)
        chosen = jobs if limit is None else jobs[:limit]
        if count := sum(job.replayed and job.options.objective is None for job in chosen):
            log.info('losses of %d runs are replayed by their own programs; objective = "none" leaves them out', count)
        self.found(len(chosen) + len(wrong))
        for run, why in wrong.items():  # no table of [[runs]] gives it what it lacks: its row says so
            self.result.remaining += 1
            options = replace(self.config.options_of(run.name), ref_as=())
            self._fail(_Job(run, options, self.out / run.report, (), 0, 0), str(why), why.exit_code)
        return chosen

    def _analyze(self, jobs: Sequence[_Job]) -> None:
        """Short runs one a task. The chunks of long ones are shared out, and this process writes their reports, as it
        does for a run that came to a machine of a cluster that does not see the folder of the reports."""
        workers = max(self.config.workers or 1, len(self.config.devices))
        remote = self.config.runner == "ray"
        long = [job for job in jobs if (remote or workers > 1) and job.long]
        taken = {job.run.path for job in long}
        if short := [job for job in jobs if job.run.path not in taken]:
            long += self._reports(self.runner, short, REPORT_IF_SEEN if remote else REPORT)
        if long:
            self._chunks(long)

    def _reports(self, runner: Runner, jobs: Sequence[_Job], function: str = REPORT) -> list[_Job]:
        """The reports of some runs, by a runner's workers; those of which none was made, as the folder of the reports
        was not seen."""
        by_run, unseen = {str(job.run.path): job for job in jobs}, []
        tasks = [report_task(job.run.path, job.out, job.options, self.settings, job.notes) for job in jobs]
        if function == REPORT_IF_SEEN:
            held = {"reports": str(self.out.absolute()), "lease": self.lease.token}
            tasks = [{**task, "out": str(Path(task["out"]).absolute()), **held} for task in tasks]
        with closing(self._outcomes(runner, function, tasks)) as outcomes:
            for task, outcome in outcomes:
                if isinstance(outcome, Done) and outcome.value is None:
                    unseen.append(by_run[task["run"]])
                else:
                    self._finish(by_run[task["run"]], outcome)
        return unseen

    def _chunks(self, jobs: Sequence[_Job]) -> None:
        """The scalars of some runs chunk by chunk, and the report of each run whose chunks are all there; where one
        failed, the run's row says so, unless the run has changed: then the report is made of what there is now."""
        left: dict[str, _Chunked] = {}
        tasks: list[Task] = []
        for job in jobs:
            begun = Reading(job.run.path, job.options, job.out)
            described = self._chunks_of(job)
            tasks += described
            if described:
                left[str(job.run.path)] = _Chunked(job, begun, len(described))
        try:
            with closing(self._outcomes(self.runner, CHUNK, tasks)) as outcomes:
                for task, outcome in outcomes:
                    run = left.get(task["run"])
                    if run is None:  # another chunk of it failed
                        continue
                    if isinstance(outcome, Done):
                        self._save(run.job, outcome.value)
                        run.chunks -= 1
                        if run.chunks:
                            continue
                    run.reading.end()
                    del left[task["run"]]
                    if isinstance(outcome, Done) or run.reading.has_changed():
                        self._reports(LocalRunner(), [run.job])
                    else:
                        self._finish(run.job, outcome, f"{task['name']}: ")
        finally:
            for run in left.values():
                run.reading.end()

    def _chunks_of(self, job: _Job) -> list[dict[str, Any]]:
        """None for a run that cannot be opened, and its row says why."""
        try:
            make_folders(job.out)
        except OSError as error:
            raise OutputError(f"{job.out}: cannot be made: {error.strerror}.") from error
        described = {**report_task(job.run.path, job.out, job.options, self.settings, job.notes), "rows": job.rows}
        outcome = call(chunk_tasks, described)
        if isinstance(outcome, Done):
            return outcome.value
        self._finish(job, outcome)
        return []

    def _save(self, job: _Job, data: bytes) -> None:
        from trajcheck.scalars.saved.store import save

        if data:
            save(job.out / FOLDER, data)

    def _outcomes(
        self, runner: Runner, function: str, tasks: Sequence[Task]
    ) -> Generator[tuple[Task, Outcome], None, None]:
        found = runner.map(function, tasks)
        try:
            for each in found:
                self.check_stopped()  # before what compiled code made of a signal counts as a failure
                still_ours(self.out, self.lease)
                yield each
        finally:
            if isinstance(found, Generator):
                found.close()

    # -- what came of a run -------------------------------------------------------------------------------------------

    def _finish(self, job: _Job, outcome: Outcome, where: str = "") -> None:
        if isinstance(outcome, Done):
            row = outcome.value["row"]
            self._count(job, row["status"], row["message"], row)
        elif isinstance(outcome, Failed):
            if outcome.is_bug:
                log.error("%s", outcome.trace)
            self._fail(job, where + str(outcome.error), outcome.exit_code)
        elif isinstance(outcome, Lost):
            self._fail(job, f"{where}{outcome.reason}", 1)

    def _fail(self, job: _Job, message: str, exit_code: int) -> None:
        """The run's row says why; an earlier report stays, and the next call tries again."""
        known = read_state(job.out)
        row = {"status": FAILED, "analyzed": now(), "message": message, "exit_code": exit_code}
        print_ = fingerprint(job.run.path, job.options, deep=self.config.deep)
        RunState(str(job.run.path), print_, row, known.sources if known else {}).write(job.out)
        self._count(job, FAILED, message, row)

    def _count(self, job: _Job, status: str, message: str, row: Mapping[str, Any]) -> None:
        self.result.analyzed[status] += 1
        self.result.remaining -= 1
        level = logging.INFO if status != FAILED else logging.WARNING
        detail = {"run": str(job.run.path), "status": status, "report": str(job.out), "duration": row.get("duration")}
        log.log(level, "%s: %s%s", job.run.path, status, f": {message}" if message else "", extra={"batch": detail})
        self.progress(1)


def _extent(run: Path) -> tuple[int, int]:
    """How many step files a run has, and their bytes, about."""
    try:
        stored = recognise(run)
        sizes = [os.path.getsize(file) for step in (stored.steps().values() if stored else ()) for file in step.files]
    except (OSError, RunError):
        return 0, 0
    return len(sizes), sum(sizes)


def with_command_line(config: BatchConfig, **given: Any) -> BatchConfig:
    """A configuration with what the command line says besides: None, False or an empty tuple says nothing."""
    said = {name: value for name, value in given.items() if not (value is None or value is False or value == ())}
    return replace(config, **said)


__all__ = ["BatchResult", "batch", "make_report", "with_command_line"]
