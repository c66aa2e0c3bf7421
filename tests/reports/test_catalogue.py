"""trajcheck/reports/figures/catalogue.py: every declared figure is found, once, and stands in its place."""

from __future__ import annotations

import pytest
from places import PACKAGE

pytest.importorskip("matplotlib")

from trajcheck.reports.figures.catalogue import KINDS, PICTURES

FIGURES = PACKAGE / "reports" / "figures"


def test_every_file_of_the_folders_is_a_figure() -> None:
    files = [path for folder in FIGURES.glob("of_*") for path in folder.glob("*.py") if path.stem != "__init__"]
    assert len({id(each) for pictures in PICTURES.values() for each in pictures}) == len(files)


@pytest.mark.parametrize("kind", KINDS)
def test_figures_of_one_report_have_places_and_names_of_their_own(kind: str) -> None:
    pictures = PICTURES[kind]
    places = [each.place for each in pictures]
    assert pictures and places == sorted(set(places))
    assert len({each.name for each in pictures}) == len(pictures)


def test_the_figure_that_says_most_comes_first_and_single_tensors_last() -> None:
    assert [PICTURES["analysis"][place].name for place in (0, -1)] == ["cosine", "layers"]
    assert [each.name for each in PICTURES["comparison"]] == ["between_runs", "line_barrier", "layers"]
