"""The reference value of an exported objective, and damaged files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exported_models import Convolutional, classify, images
from exported_runs import assert_same, exported, seeded, with_facts

from trajcheck.errors import ObjectiveError
from trajcheck.objective.loading import load_objective
from trajcheck.objective.objective import Objective

Facts = dict[str, Any]


def test_an_intact_copy_is_as_good(run: Path) -> None:
    with_facts(run, lambda facts: None)
    assert "reference loss at step 0 (relative error 0.0e+00)" in load_objective("run", run=run, device="cpu").note


@pytest.mark.parametrize("key", ["loss", "grad_norm"])
def test_another_value_is_refused(run: Path, key: str) -> None:
    with_facts(run, lambda facts: facts["reference"].update({key: facts["reference"][key] * 1.01}))
    what = "loss" if key == "loss" else "gradient norm"
    with pytest.raises(
        ObjectiveError, match=f"objective.json: at step 0 the program gives the {what} .* it gave .*use"
    ):
        load_objective("run", run=run, device="cpu")


def test_another_program_is_refused(run: Path) -> None:
    """The graph itself changed: 0.25 of dropout become 0.5."""

    def change(facts: Facts) -> None:
        for node in facts["nodes"]:
            if node["op"] == "aten.dropout.default":
                node["args"][1] = 0.5

    with_facts(run, change)
    with pytest.raises(ObjectiveError, match="at step 0 the program gives"):
        load_objective("run", run=run, device="cpu")


def test_where_the_reference_cannot_be_checked_the_note_says_so(run: Path) -> None:
    step = run / "step-000000000.safetensors"
    data = step.read_bytes()
    shutil.copy(run / "step-000000001.safetensors", step)
    assert "could not be checked" in load_objective("run", run=run, device="cpu").note
    step.unlink()
    assert "could not be checked at step 0" in load_objective("run", run=run, device="cpu").note
    step.write_bytes(data)
    with_facts(run, lambda facts: facts.update(torch="2.99.0"))
    assert "its random numbers are not those" in load_objective("run", run=run, device="cpu").note
    with_facts(run, lambda facts: facts.update(reference=None))
    assert load_objective("run", run=run, device="cpu").note.startswith("no reference value")


def test_damaged_files(run: Path) -> None:
    path = run / "objective.json"
    data = path.read_bytes()
    for damaged, reason in (
        (data[: len(data) // 2], "it is not whole JSON"),
        (b"", "it is not whole JSON"),
        (b"[" * 100_000, "it is not whole JSON"),
        (b'"hello"', "it has no format, so no Recorder wrote it"),
        (data.replace(b"aten.dropout", b"aten.droptou", 1), "its checksum is wrong"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ObjectiveError, match=reason) as raised:
            load_objective("run", run=run)
        assert str(path) in str(raised.value) and "FILE.py:NAME" in str(raised.value)


REFUSED: dict[str, tuple[Callable[[Facts], Any], str]] = {
    "format": (lambda facts: facts.update(format=2), "its format is 2; this trajcheck reads format 1"),
    "key": (lambda facts: facts.pop("batch"), "lacks 'batch'"),
    "entry": (lambda facts: facts.update(parameters=[{"name": "a"}]), "its parameters hold"),
    "alias": (lambda facts: facts.update(aliases={"a": "b"}), "there is no parameter 'output.weight'"),
    "name": (lambda facts: facts["parameters"][0].update(name="forward"), "no parameter|not called as those"),
    "shape": (lambda facts: facts["parameters"][0].update(shape=[2**40, 2**40]), "a shape is"),
    "modes": (lambda facts: facts.update(modes={"": "evil"}), "its modes are"),
    "reference": (lambda facts: facts["reference"].update(step="0"), "its reference has no step"),
    "tensors": (lambda facts: facts["tensors"].append("buffer/more"), "and objective.json says"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_of_others(run: Path, name: str) -> None:
    change, reason = REFUSED[name]
    with_facts(run, change)
    with pytest.raises(ObjectiveError, match=reason) as raised:
        load_objective("run", run=run)
    assert str(run / "objective") in str(raised.value)


def test_the_file_of_the_tensors(run: Path) -> None:
    """It is the one that the program was written with, a regular file, and no larger than said."""
    path = run / "objective.safetensors"
    data = path.read_bytes()

    def fails(reason: str) -> None:
        with pytest.raises(ObjectiveError, match=reason):
            load_objective("run", run=run)

    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    fails("objective.safetensors: it is not the file that objective.json was written with")
    with path.open("wb") as file:
        file.truncate(1 << 36)  # sparse
    fails("bytes, and expected are")
    path.unlink()
    fails("objective.safetensors: no exported objective")
    os.mkfifo(path)
    fails("not a regular file")
    path.unlink()
    path.write_bytes(b"x" * len(data))
    with_facts(run, lambda facts: facts.update(constants=None))
    fails("objective.safetensors: it holds none")
    (run / "objective.json").unlink()
    (run / "objective.json").symlink_to("/dev/zero")
    fails("objective.json: not a regular file")


def test_facts_are_plain_data(run: Path) -> None:
    facts = json.loads((run / "objective.json").read_text())
    assert facts["format"] == 1 and len(facts["checksum"]) == 64
    assert {node["op"].partition(".")[0] for node in facts["nodes"]} <= {
        *("aten", "python", "input", "parameter", "buffer", "constant")
    }


def test_batchnorm_model_alone(tmp_path: Path) -> None:
    model = seeded(Convolutional)
    here = exported(tmp_path, model, classify, images(6, 0))
    for rows in (6, 2):
        assert_same(here, Objective(Convolutional(), classify), model, images(rows, 1))
