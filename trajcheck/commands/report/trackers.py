"""Saved reports in TensorBoard and Weights & Biases, a run each, beside the training's own curves."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from trajcheck.errors import BadInputError, OutputError, UsageError
from trajcheck.files.opening import MOST_NUMBERS, read_bytes
from trajcheck.reports.extras import need
from trajcheck.reports.making.folder import SUMMARY, ReportFolder
from trajcheck.reports.reading.report import SavedReport, read_report
from trajcheck.reports.trackers.tags import Tagged, tagged
from trajcheck.version import __version__

#: What the name of a run ends with, so that it stands beside the training's own and is not taken for it.
SUFFIX = "-trajcheck"

#: What TensorBoard knows its files by.
EVENTS = "events.out.tfevents."


@dataclass(frozen=True)
class TrackedRun:
    """Where a report now is, and what of it: `values` under `tags`; `beyond` are values that found no place, as they
    are too large or too small for the tool's float32."""

    report: Path
    name: str
    place: str
    tags: int
    values: int
    beyond: int = 0


def write_tensorboard(
    reports: Sequence[str | os.PathLike[str]] | str | os.PathLike[str], out: str | os.PathLike[str]
) -> list[TrackedRun]:
    """Write every numeric column of reports for TensorBoard, each report into a folder of its own in `out`, as
    out/NAME-trajcheck; empty cells are left out. No checkpoint is opened.

    Written again, a report's folder is replaced whole; one that holds anything else is refused. Needs the extra
    `tensorboard`. Raises UsageError, BadInputError where a folder holds no report, OutputError.
    """
    need("tensorboard", "--tensorboard needs")
    from trajcheck.reports.trackers.event_files import event_file

    found: list[TrackedRun] = []
    written: list[tuple[ReportFolder, dict[str, str | bytes]]] = []
    with ExitStack() as folders:
        for saved, name in _named(reports):
            owner = f"tensorboard of {os.path.realpath(saved.folder)}, run {saved.id}"
            folder = folders.enter_context(ReportFolder(Path(out) / name, owner, "another folder with --tensorboard"))
            made = event_file(_columns(saved), _created(saved))
            about = {"format": 1, "run": {"id": owner}, "report": str(saved.folder)}
            summary = json.dumps({**about, "versions": {"trajcheck": __version__}}, indent=1) + "\n"
            written.append((folder, {SUMMARY: summary, f"{EVENTS}{int(_created(saved))}.trajcheck": made.content}))
            found.append(TrackedRun(saved.folder, name, str(folder.path), made.tags, made.values, made.beyond))
        for folder, files in written:
            earlier = [path.name for path in folder.path.glob(f"{EVENTS}*.trajcheck") if path.name not in files]
            folder.publish(files, outdated=earlier)
    return found


def log_wandb(reports: Sequence[str | os.PathLike[str]] | str | os.PathLike[str], project: str) -> list[TrackedRun]:
    """Log every numeric column of reports to a project of Weights & Biases, a run each, as NAME-trajcheck; empty cells
    are left out. No checkpoint is opened.

    What is in the project already, the same tables of the same run, is refused. Needs the extra `wandb`; its own
    settings and environment hold, as WANDB_MODE=offline. Raises UsageError, BadInputError, OutputError.
    """
    need("wandb", "--wandb needs")
    import wandb

    every = [
        (saved, name, f"trajcheck-{_fingerprint(saved)}", list(_columns(saved))) for saved, name in _named(reports)
    ]
    for saved, _, identity, _ in every:
        _refuse_logged_before(identity, saved)
    return [_log(wandb, project, *each) for each in every]


def _log(wandb: Any, project: str, saved: SavedReport, name: str, identity: str, columns: list[Tagged]) -> TrackedRun:
    by_step: dict[int, dict[str, float]] = {}
    for each in columns:
        for step, value in zip(each.steps.tolist(), each.values.tolist(), strict=True):
            by_step.setdefault(step, {})[each.tag] = value
    try:
        run = wandb.init(
            project=project,
            name=name,
            id=identity,
            resume="never",
            config={"trajcheck": {key: saved.summary.get(key) for key in ("run", "options", "versions")}},
            settings=wandb.Settings(silent=True, console="off"),
        )
        try:
            for step in sorted(by_step):
                run.log(by_step[step], step=step)
            place = str(run.dir if run.offline else run.url)
        except BaseException:
            run.finish(exit_code=1)
            raise
        run.finish()
    except Exception as error:  # of many classes, of its own and of its network
        raise OutputError(
            f"{saved.folder}: could not be logged to the project {project!r} of Weights & Biases: "
            f"{str(error).rstrip('.'):.500}. Log in with `wandb login`, or keep the run on this machine with "
            "WANDB_MODE=offline."
        ) from error
    return TrackedRun(saved.folder, name, place, len(columns), sum(len(each.values) for each in columns))


def _columns(saved: SavedReport) -> Iterator[Tagged]:
    try:
        yield from tagged(saved)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadInputError(
            f"{saved.folder}: a table is not as trajcheck writes it ({error!r:.200}). Make the report anew; where it "
            "is new, this is a bug."
        ) from error


def _named(reports: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]) -> list[tuple[SavedReport, str]]:
    """The reports with a name each: what is distinct of their folders."""
    folders = [Path(each) for each in ([reports] if isinstance(reports, str | os.PathLike) else reports)]
    places = [os.path.realpath(folder) for folder in folders]
    if twice := [folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]:
        raise UsageError(f"{twice[-1]}: was given twice. Name each report once.")
    common = os.path.commonpath([os.path.dirname(place) for place in places]) if places else ""
    names: list[str] = []
    for place in places:
        name = re.sub(r"[^\w.@+=-]+", "-", os.path.relpath(place, common)).strip("-.") or "report"
        while name + SUFFIX in names:
            name += "-2"
        names.append(name + SUFFIX)
    return [(read_report(folder), name) for folder, name in zip(folders, names, strict=True)]


def _created(saved: SavedReport) -> float:
    """When the report was made, in seconds since 1970; 0 where it does not say."""
    with suppress(ValueError, OverflowError):
        return max(0.0, datetime.fromisoformat(str(saved.summary.get("created", ""))).timestamp())
    return 0.0


def _fingerprint(saved: SavedReport) -> str:
    """Of the run and of all numbers in the tables."""
    found = hashlib.sha256(saved.id.encode("utf-8", "surrogatepass"))
    for name in sorted(saved.tables):
        found.update(name.encode())
        found.update(read_bytes(saved.folder / f"{name}.csv", MOST_NUMBERS))
    return found.hexdigest()[:20]


def _refuse_logged_before(identity: str, saved: SavedReport) -> None:
    """Where runs are kept on this machine, nobody else tells that one is there already."""
    folder = Path(os.environ.get("WANDB_DIR") or ".")
    for base in (folder / "wandb", folder / ".wandb"):
        if earlier := sorted(base.glob(f"*run-*-{identity}")):
            raise OutputError(
                f"{saved.folder}: was logged before, with the same numbers: {earlier[0]}. It is not logged twice; to "
                "do so all the same, remove that folder."
            )
