"""Offline analysis of neural-network training trajectories.

Record a run with `Recorder`, or a loop as it stands with `record`; analyze it with `analyze`, hold it against its
gradient flow with `flow`. Importing this package imports neither torch nor pandas: the names below are loaded when they
are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_WHERE = {
    "Recorder": "recorder",
    "Budget": "schedules",
    "Every": "schedules",
    "First": "schedules",
    "FlowReport": "flow_findings",
    "Listed": "schedules",
    "Logarithmic": "schedules",
    "Pairs": "schedules",
    "Report": "findings",
    "TrajcheckError": "errors",
    "Comparison": "comparison_findings",
    "BatchConfig": "nightly.config",
    "BatchResult": "nightly.night",
    "analyze": "analysis",
    "batch": "nightly.night",
    "compare": "comparison",
    "draw_report": "drawing",
    "draw_together": "drawing_together",
    "record": "recording_context",
    "verify": "verification",
    "flow": "gradient_flow",  # not flow.py: importing a module of that name would put it in the function's place
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
    "draw_report",
    "draw_together",
    "flow",
    "record",
    "verify",
]

if TYPE_CHECKING:
    from trajcheck.analysis import analyze
    from trajcheck.comparison import compare
    from trajcheck.comparison_findings import Comparison
    from trajcheck.drawing import draw_report
    from trajcheck.drawing_together import draw_together
    from trajcheck.errors import TrajcheckError
    from trajcheck.findings import Report
    from trajcheck.flow_findings import FlowReport
    from trajcheck.gradient_flow import flow
    from trajcheck.nightly.config import BatchConfig
    from trajcheck.nightly.night import BatchResult, batch
    from trajcheck.recorder import Recorder
    from trajcheck.recording_context import record
    from trajcheck.schedules import Budget, Every, First, Listed, Logarithmic, Pairs
    from trajcheck.verification import verify


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
