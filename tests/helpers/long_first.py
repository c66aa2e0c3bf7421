"""Of several test processes, none is left alone with a long file at the end: the longest are begun first."""

from __future__ import annotations

import pytest
from places import ROOT

#: The files that take longest, by the seconds of a worker that has them, the longest first.
LONGEST = (
    "tests/runners/test_ray_cluster.py",
    "tests/docs/test_blocks.py",
    "tests/integrations/test_hf.py",
    "tests/commands/flow/test_against_exact.py",
    "tests/commands/analyze/test_against_dense.py",
    "tests/reports/test_figures.py",
    "tests/recording/unedited_loop/test_record.py",
    "tests/situations/test_language_model_script.py",
    "tests/commands/analyze/test_layers_table.py",
    "tests/commands/batch/test_faults.py",
    "tests/recording/model/test_ranks.py",
    "tests/metrics/test_laws.py",
    "tests/commands/report/test_figures_command.py",
    "tests/commands/report/test_several_reports.py",
    "tests/commands/flow/test_resuming.py",
    "tests/fuzzing/test_fuzz.py",
    "tests/commands/batch/test_batch.py",
    "tests/commands/analyze/test_samples.py",
    "tests/commands/analyze/test_sample_runs.py",
    "tests/commands/analyze/test_resolution.py",
    "tests/commands/analyze/test_curvature_columns.py",
    "tests/commands/analyze/test_dry_run.py",
    "tests/runs/formats/archives/test_dcp.py",
    "tests/objective/test_replay_exported.py",
    "tests/reports/test_page_in_chromium.py",
    "tests/commands/convert/test_convert.py",
)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # which would begin the files with the most tests first


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        place = {ROOT / name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.path, len(place)))
