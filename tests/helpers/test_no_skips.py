"""no_skips.py: in the gate a skip fails the run, and one for want of CUDA does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from places import HELPERS

TESTS = """
import pytest

def test_passes():
    pass

@pytest.mark.skipif(True, reason="needs a CUDA device")
def test_cuda():
    raise AssertionError

@pytest.mark.xfail(reason="known")
def test_known():
    raise AssertionError
"""
SKIPPED = """

def test_inside():
    pytest.skip("no file system")

@pytest.mark.skip(reason="not today")
def test_marked():
    pass
"""


def outcome(folder: Path, source: str, other: str = "") -> tuple[int, str]:
    (folder / "conftest.py").write_text("from no_skips import pytest_make_collect_report, pytest_runtest_makereport\n")
    (folder / "test_some.py").write_text(source)
    (folder / "test_other.py").write_text(other)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(HELPERS), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_a_skip_for_want_of_cuda_may_pass(tmp_path: Path) -> None:
    code, out = outcome(tmp_path, TESTS)
    assert code == 0 and "1 passed, 1 skipped, 1 xfailed" in out


def test_any_other_skip_is_a_failure(tmp_path: Path) -> None:
    code, out = outcome(tmp_path, TESTS + SKIPPED)
    assert code == 1 and "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error" in out
    assert "not run (Skipped: no file system)" in out and "not run (Skipped: not today)" in out


def test_a_module_that_is_skipped_is_an_error(tmp_path: Path) -> None:
    code, out = outcome(tmp_path, TESTS, "import pytest\npytest.importorskip('no_such_package')\n")
    assert code == 2 and "test_other.py: not run" in out and "no_such_package" in out
