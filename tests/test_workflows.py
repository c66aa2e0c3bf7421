""".github/workflows: they cannot run here, but what they name exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from benchmarks.faults.__main__ import COMMANDS
from experiments.recipe import names

yaml = pytest.importorskip("yaml")

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def jobs(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text())["jobs"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_job_has_steps_and_every_file_that_it_names_is_there(path: Path) -> None:
    found = jobs(path)
    for job in found.values():
        assert job["runs-on"] and job["steps"] and set(job.get("needs", ())) <= found.keys()
        for step in job["steps"]:
            assert len({"uses", "run"} & step.keys()) == 1
    for named in re.findall(r"\.ci/[\w./]+", path.read_text()):
        assert (ROOT / named).is_file(), named


def test_the_versions_of_python_are_those_that_the_package_claims() -> None:
    claimed = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    tested = jobs(ROOT / ".github" / "workflows" / "tests.yml")["tests"]["strategy"]["matrix"]["python"]
    (wheels,) = re.findall(r'CIBW_BUILD: "\{(.*?)\}', (ROOT / ".github" / "workflows" / "release.yml").read_text())
    assert claimed == tested == [re.sub(r"cp3", "3.", each) for each in wheels.split(",")]


def test_every_kind_of_fault_is_tried_once_a_week() -> None:
    assert jobs(ROOT / ".github" / "workflows" / "weekly.yml")["faults"]["strategy"]["matrix"]["kind"] == [*COMMANDS]


def test_every_experiment_is_made_every_night() -> None:
    matrix = jobs(ROOT / ".github" / "workflows" / "nightly.yml")["experiments"]["strategy"]["matrix"]
    assert matrix["experiment"] == names()
