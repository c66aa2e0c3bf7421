"""What a batch has workers do: a chunk of a run, or its report, from a small description that JSON can hold."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from trajcheck.commands.batch.lock import LOCK
from trajcheck.commands.batch.run_state import DONE, INCOMPLETE, Fingerprint, RunState, fingerprint, tables_of
from trajcheck.commands.batch.while_read import reading, vanishing
from trajcheck.errors import ObjectiveError, RunError, TrajcheckError
from trajcheck.files.leases import holder_of
from trajcheck.measuring.options import Options
from trajcheck.runs.logs.log_choice import log_of
from trajcheck.runs.run_info import Ended
from trajcheck.scalars.saved import FOLDER

if TYPE_CHECKING:
    from trajcheck.measuring.measured_run import MeasuredRun
    from trajcheck.reports.making.results import Report
    from trajcheck.runs.references import Reference
    from trajcheck.scalars.saved.store import ScalarStore

REPORT, CHUNK = f"{__name__}:make_report", f"{__name__}:measure_chunk"
REPORT_IF_SEEN = f"{__name__}:make_report_if_seen"


def report_task(
    run: Path, out: Path, options: Options, settings: Mapping[str, Any], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """The description of a whole report; `settings`: deep, plots, interval; `notes` join the message of its row."""
    return {
        "name": str(run),
        "group": str(run),
        "run": str(run),
        "out": str(out),
        "options": asdict(options),
        "notes": list(notes),
        **settings,
    }


def make_report(task: Mapping[str, Any]) -> dict[str, Any]:
    """Analyze a run, from what is saved with its report, and write the report; the state that came of it, as JSON.

    A run that changed while it was read, and was unreadable for that, is read once more. Raises as `MeasuredRun`
    does, and RunError for what vanished.
    """
    run, out, options = Path(task["run"]), Path(task["out"]), options_of(task)
    asked = options_of({"options": task["options"]})  # without what the runner gives this worker
    before = fingerprint(run, asked, deep=task["deep"])
    try:
        state = _make(run, out, options, before, task)
    except TrajcheckError:
        now = fingerprint(run, asked, deep=task["deep"])
        if now == before:
            raise
        state = _make(run, out, options, now, task)
    state.write(out)
    return asdict(state)


def make_report_if_seen(task: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same on another machine; None where that does not see the folder of the reports, `task["reports"]`, which the
    batch holds by the lease `task["lease"]`."""
    try:
        holder = holder_of(Path(task["reports"]), LOCK)
    except OSError:
        return None
    return make_report(task) if holder is not None and holder.token == task["lease"] else None


def options_of(task: Mapping[str, Any]) -> Options:
    """The options in a description, with the threads that the runner gives where they do not say."""
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in task["options"].items()
    }
    if plain["threads"] is None:
        plain["threads"] = task.get("threads")
    return Options(**plain)


def _make(run: Path, out: Path, options: Options, known: Fingerprint, task: Mapping[str, Any]) -> RunState:
    from trajcheck.commands.analyze.command import report_of
    from trajcheck.commands.report.one_report import can_draw, draw_report
    from trajcheck.measuring.measured_run import MeasuredRun

    started = time.monotonic()
    with reading(run, options, out):
        analysis = MeasuredRun(run, options, quiet=True, deep=task["deep"], device=task.get("device"))
        report, analysis = report_of(analysis, out, interval=task["interval"])
    if task["plots"] is not False and can_draw():
        draw_report(report.folder)
    row = _row(report, time.monotonic() - started, task["notes"])
    return RunState(str(run), known, row, dict(analysis.sources), tables_of(out, report.files))


def _row(report: Report, duration: float, notes: Sequence[str]) -> dict[str, Any]:
    """What the index holds of a report: facts, and under `rows` its quantities, by reference and sample."""
    from trajcheck.reports.quantities.rows import quantity_rows
    from trajcheck.reports.reading.report import SavedReport

    summary = report.summary
    run = summary["run"]
    tables = {"steps": report.steps, "references": report.references}
    rows = quantity_rows(SavedReport(report.folder, "analysis", tables, report.undefined, summary))
    return {
        "status": INCOMPLETE if report.incomplete else DONE,
        "id": run["id"],
        "recorded_steps": run["recorded_steps"],
        "first_step": run["first_step"],
        "last_step": run["last_step"],
        "parameters": run["parameters"],
        "optimizer": run["optimizer"],
        "user": dict(run["user"]),
        "analyzed": now(),
        "duration": round(duration, 3),
        "left_out": len(summary["left_out"]["steps"]),
        "warnings": len(summary["warnings"]),
        "message": "; ".join((*report.incomplete, *notes, *_stopped(summary["run"].get("ended")))),
        "rows": [asdict(each) for each in rows],
    }


def _stopped(ended: Mapping[str, Any] | None) -> list[str]:
    """What there is to say of how the recording ended."""
    said = "" if ended is None else Ended(**ended).stopped
    return [said] if said else []


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


# -- chunks of a long run ---------------------------------------------------------------------------------------------


@dataclass
class _Held:
    """The run that this worker had last. `workspace` holds vectors where the report's folder is not to be seen here."""

    known: str
    analysis: MeasuredRun
    workspace: TemporaryDirectory[str] | None
    references: Sequence[Reference]


_held: list[_Held] = []  # one at most


def _let_go() -> None:
    while _held:
        if (workspace := _held.pop().workspace) is not None:
            workspace.cleanup()


def chunk_tasks(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The descriptions of the chunks of a run, of at most `task["rows"]` each; the rest of the task is that of the
    report. Raises as `MeasuredRun` does."""
    from trajcheck.measuring.measured_run import MeasuredRun

    rows = task["rows"]
    with vanishing(Path(task["run"])):
        analysis = MeasuredRun(Path(task["run"]), options_of(task), quiet=True, deep=task["deep"])
    steps = [row.step for row in analysis.rows.work]
    left_out = list(analysis.trajectory.left_out.items())  # also what the audit found, so that nobody else needs one
    return [
        {
            **task,
            "left_out": left_out,
            "name": f"{task['run']}, steps {steps[begin]} to {steps[min(begin + rows, len(steps)) - 1]}",
            "steps": steps[begin : begin + rows],
            "content": analysis.content_of(steps[begin : begin + rows]),
        }
        for begin in range(0, len(steps), rows)
    ]


def measure_chunk(task: Mapping[str, Any]) -> bytes:
    """The scalars of some steps of a run that are not saved with its report yet, as the bytes of a file of records.

    Raises RunError where this machine sees another content of these steps than the one that asks.
    """
    with vanishing(Path(task["run"])):
        return _measure(task)


def _measure(task: Mapping[str, Any]) -> bytes:
    from trajcheck.scalars.saved.store import ScalarStore

    held = _hold(task)
    analysis, folder = held.analysis, Path(task["out"]) / FOLDER
    if analysis.content_of(task["steps"]) != task["content"]:
        raise RunError(
            f"{task['run']}: this worker sees other step files than the batch does. All of its machines must see the "
            "same archive under the same path."
        )
    store = ScalarStore(folder, interval=float("inf"))
    try:
        _compute(held, set(task["steps"]), store)
    except ObjectiveError as error:
        if not analysis.choice.by_default:
            raise
        held.analysis = analysis.without_losses(str(error))  # as the report will
        _compute(held, set(task["steps"]), store)
    return store.waiting()


def _compute(held: _Held, steps: set[int], store: ScalarStore) -> None:
    measurement = held.analysis.measurement(held.references, store)
    rows = held.analysis.rows
    held.analysis.compute(
        measurement, measurement.portions_of(rows.some({r.place for r in rows.work if r.step in steps}))
    )


def _hold(task: Mapping[str, Any]) -> _Held:
    """The run of a chunk, which stays open for the next one."""
    from trajcheck.measuring.measured_run import MeasuredRun
    from trajcheck.runs.divergence import load_trajectory

    options, run = options_of(task), Path(task["run"])
    known = repr((options, run, task["left_out"], fingerprint(run, options, deep=task["deep"])))
    if not _held or _held[0].known != known:
        _let_go()
        out = Path(task["out"])
        elsewhere = None if out.is_dir() else TemporaryDirectory(prefix="trajcheck-")
        workspace = out / FOLDER if elsewhere is None else Path(elsewhere.name)
        trajectory = load_trajectory(run, options.skip_bad, log_of(options))
        if bad := {step: reason for step, reason in task["left_out"] if step in trajectory.steps}:
            trajectory = trajectory.without(bad)
        analysis = MeasuredRun(
            run, options, quiet=True, deep=task["deep"], device=task.get("device"), trajectory=trajectory
        )
        _held.append(_Held(known, analysis, elsewhere, analysis.resolve(workspace).points))
    return _held[0]
