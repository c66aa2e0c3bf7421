"""Offline analysis of neural-network training trajectories.

Record a run with `Recorder`, or a loop as it stands with `record`; analyze it with `analyze`, hold it against its
gradient flow with `flow`. Importing this package imports neither torch nor pandas: the names below are loaded when they
are first used.
"""

from importlib import import_module

from trajcheck.version import __version__ as __version__

TYPE_CHECKING = False  # as that of typing, which is not imported: see __main__.py

_WHERE = {
    "Recorder": "recording.recorder",
    "Budget": "recording.schedule.schedules",
    "Every": "recording.schedule.schedules",
    "First": "recording.schedule.schedules",
    "FlowReport": "reports.making.results",
    "Listed": "recording.schedule.schedules",
    "Logarithmic": "recording.schedule.schedules",
    "Pairs": "recording.schedule.schedules",
    "Report": "reports.making.results",
    "TrajcheckError": "errors",
    "Comparison": "reports.making.results",
    "BatchConfig": "commands.batch.options",
    "BatchResult": "commands.batch.command",
    "analyze": "commands.analyze.command",
    "batch": "commands.batch.command",
    "compare": "commands.compare.command",
    "draw_report": "commands.report.one_report",
    "draw_together": "commands.report.several_reports",
    "table": "commands.table.command",
    "log_wandb": "commands.report.trackers",
    "write_tensorboard": "commands.report.trackers",
    "record": "recording.unedited_loop.record",
    "verify": "commands.verify.command",
    "inspect": "commands.inspect.command",
    "convert": "commands.convert.command",
    "flow": "commands.flow.command",
    "schedule": "commands.schedule.command",
}

__all__ = [
    "BatchConfig",
    "BatchResult",
    "Budget",
    "Comparison",
    "Every",
    "First",
    "FlowReport",
    "Listed",
    "Logarithmic",
    "Pairs",
    "Recorder",
    "Report",
    "TrajcheckError",
    "analyze",
    "batch",
    "compare",
    "convert",
    "draw_report",
    "draw_together",
    "flow",
    "inspect",
    "log_wandb",
    "record",
    "schedule",
    "table",
    "verify",
    "write_tensorboard",
]

if TYPE_CHECKING:
    from trajcheck.commands.analyze.command import analyze
    from trajcheck.commands.batch.command import BatchResult, batch
    from trajcheck.commands.batch.options import BatchConfig
    from trajcheck.commands.compare.command import compare
    from trajcheck.commands.convert.command import convert
    from trajcheck.commands.flow.command import flow
    from trajcheck.commands.inspect.command import inspect
    from trajcheck.commands.report.one_report import draw_report
    from trajcheck.commands.report.several_reports import draw_together
    from trajcheck.commands.report.trackers import log_wandb, write_tensorboard
    from trajcheck.commands.schedule.command import schedule
    from trajcheck.commands.table.command import table
    from trajcheck.commands.verify.command import verify
    from trajcheck.errors import TrajcheckError
    from trajcheck.recording.recorder import Recorder
    from trajcheck.recording.schedule.schedules import Budget, Every, First, Listed, Logarithmic, Pairs
    from trajcheck.recording.unedited_loop.record import record
    from trajcheck.reports.making.results import Comparison, FlowReport, Report


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
