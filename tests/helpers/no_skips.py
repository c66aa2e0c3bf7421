"""Hooks of pytest for the gate, which has all that a test may need: a skip fails, unless it is for want of CUDA."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return failed(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that is skipped as a whole."""
    report = yield
    return failed(report)


def failed(report: Any) -> Any:
    """The report, of a failure if it was one of a skip."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "CUDA" not in reason:
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid}: not run ({reason}); where no test may be skipped, that is a failure"
    return report
