"""The reference value of an exported objective, and damaged files."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_models import Convolutional, classify, images
from exported_runs import assert_same, exported, seeded

from trajcheck.errors import ObjectiveError
from trajcheck.objective.exported import FACTS
from trajcheck.objective.loading import load_objective
from trajcheck.objective.objective import Objective


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """The archive with changed entries, and right checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    path.write_bytes(buffer.getvalue())


def with_facts(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    def edited(name: str, content: bytes) -> bytes:
        if not name.endswith(FACTS):
            return content
        facts = json.loads(content)
        change(facts)
        return json.dumps(facts).encode()

    rewritten(path, edited)


def test_an_intact_copy_is_as_good(run: Path) -> None:
    rewritten(run / "objective.pt2", lambda name, content: content)
    assert "reference loss at step 0 (relative error 0.0e+00)" in load_objective("run", run=run, device="cpu").note


@pytest.mark.parametrize("key", ["loss", "grad_norm"])
def test_another_value_is_refused(run: Path, key: str) -> None:
    with_facts(run / "objective.pt2", lambda facts: facts["reference"].update({key: facts["reference"][key] * 1.01}))
    what = "loss" if key == "loss" else "gradient norm"
    with pytest.raises(ObjectiveError, match=f"objective.pt2: at step 0 the program gives the {what} .* it gave .*use"):
        load_objective("run", run=run, device="cpu")


def test_another_program_is_refused(run: Path) -> None:
    """The graph itself changed: 0.25 of dropout become 0.5."""
    path = run / "objective.pt2"
    rewritten(path, lambda name, content: content.replace(b"0.25", b"0.50") if name.endswith("model.json") else content)
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
    with_facts(run / "objective.pt2", lambda facts: facts.update(torch="2.99.0"))
    assert "its random numbers are not those" in load_objective("run", run=run, device="cpu").note
    with_facts(run / "objective.pt2", lambda facts: facts.update(reference=None))
    assert load_objective("run", run=run, device="cpu").note.startswith("no reference value")


def test_damaged_files(run: Path) -> None:
    path = run / "objective.pt2"
    data = path.read_bytes()
    for damaged, reason in (
        (data[: len(data) // 2], "not a whole .pt2 archive"),
        (b"", "not a whole .pt2 archive"),
        (b"hello", "not a whole .pt2 archive"),
        (data.replace(b"aten.dropout", b"aten.droptou", 1), "the checksum of .*model.json is wrong"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ObjectiveError, match=reason) as raised:
            load_objective("run", run=run)
        assert str(path) in str(raised.value) and "FILE.py:NAME" in str(raised.value)


def test_files_of_others(run: Path) -> None:
    path = run / "objective.pt2"
    data = path.read_bytes()

    def fails(reason: str) -> None:
        with pytest.raises(ObjectiveError, match=reason) as raised:
            load_objective("run", run=run)
        assert str(path) in str(raised.value)
        path.write_bytes(data)

    rewritten(path, lambda name, content: None if name.endswith(FACTS) else content)
    fails("no Recorder wrote it")
    with_facts(path, lambda facts: facts.update(format=2))
    fails("its format is 2; this trajcheck reads format 1")
    with_facts(path, lambda facts: facts.pop("batch"))
    fails("lacks 'batch'")
    with_facts(path, lambda facts: facts.update(parameters=[{"name": "a"}]))
    fails("does not have what trajcheck.json says")
    with_facts(path, lambda facts: facts.update(aliases={"a": "b"}))
    fails("does not have what trajcheck.json says")
    with_facts(path, lambda facts: facts.update(torch="2.99.0"))
    rewritten(
        path, lambda name, content: content.replace(b'"major": ', b'"major": 9') if "models/" in name else content
    )
    fails("torch cannot load the program .*exported by torch 2.99.0, this is torch .*use that version, or an objective")


def test_pickles_are_refused_before_torch_sees_them(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run / "objective.pt2"
    data = path.read_bytes()
    monkeypatch.setattr(torch.export, "load", lambda *a, **k: pytest.fail("it was loaded"))
    changes: list[Callable[[str, bytes], bytes]] = [
        lambda name, content: b"pickle" if "sample_inputs/" in name else content,
        lambda name, content: content.replace(b'"use_pickle": false', b'"use_pickle": true'),
        lambda name, content: content.replace(b'"use_pickle": false', b'"use_pickle":\ttrue'),
    ]
    for change in changes:
        rewritten(path, change)
        with pytest.raises(ObjectiveError, match="is not loaded"):
            load_objective("run", run=run)
        path.write_bytes(data)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("objective/data/constants/custom_obj_0", b"x")
    with pytest.raises(ObjectiveError, match="object of another class"):
        load_objective("run", run=run)


def test_batchnorm_model_alone(tmp_path: Path) -> None:
    model = seeded(Convolutional)
    here = exported(tmp_path, model, classify, images(6, 0))
    for rows in (6, 2):
        assert_same(here, Objective(Convolutional(), classify), model, images(rows, 1))
