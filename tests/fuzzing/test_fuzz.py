"""No input makes a reader crash, hang, fill the memory or reach outside its folder; and what fuzzing found, once more.

The cases are fixed; `python tests/fuzzing/fuzz.py --minutes 10` makes as many others as one likes.
"""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import Worker, input_of
from fuzz_guard import fault
from fuzz_readers import READERS, full_run_files, report_files, run_files, spread, step_name
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

import trajcheck
from trajcheck.commands.batch.config_file import read_config
from trajcheck.errors import BadInputError, RunError, StepFileError, TrajcheckError, UsageError
from trajcheck.files.plain_json import MOST_LEVELS, parse_json
from trajcheck.files.safetensors_header import read_header
from trajcheck.measuring.options import Options
from trajcheck.reports.reading.report import read_report
from trajcheck.runs.batch_restoring import unflatten
from trajcheck.runs.formats.native import reading as native
from trajcheck.runs.references import resolve_references
from trajcheck.runs.trajectory import open_trajectory

#: Cases of each reader; slow ones have fewer.
CASES = 60

FEW = settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", [name for name in READERS if name != "drawn_report"])
def test_changed_inputs_are_read_or_refused(name: str) -> None:
    reader = READERS[name]
    for seed in reader.seeds()[:3]:
        assert fault(reader.read, seed, memory=False) is None
    for case in range(max(6, int(CASES * reader.share))):
        found = fault(reader.read, input_of(name, case), memory=case % 5 == 0)
        assert found is None, f"{name} --case {case}\n{found}"


def test_the_guard_sees_what_it_should(tmp_path: Path) -> None:
    def crash(data: bytes, folder: Path) -> None:
        raise KeyError("x")

    def fill(data: bytes, folder: Path) -> None:
        np.ones(20_000_000)

    def escape(data: bytes, folder: Path) -> None:
        (folder / "../../escaped").resolve().with_name("trajcheck-escaped").write_bytes(data)

    def unpickle(data: bytes, folder: Path) -> None:
        pickle.loads(pickle.dumps(Path("x")))

    def refuse(data: bytes, folder: Path) -> None:
        raise RunError("why")

    assert "KeyError" in str(fault(crash, b""))
    assert "MB" in str(fault(fill, b""))
    assert "trajcheck-escaped" in str(fault(escape, b""))
    assert "pickle.find_class" in str(fault(unpickle, b""))
    assert fault(refuse, b"") is None
    (Path(tempfile.gettempdir()) / "trajcheck-escaped").unlink()


def test_a_worker_that_dies_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    import fuzz

    monkeypatch.setattr(fuzz, "fault", lambda read, data, memory: os._exit(9))
    worker = Worker()
    assert worker.fault("steps_option", 0) == "the process ended with 9"
    monkeypatch.setattr(fuzz, "fault", lambda read, data, memory: None)
    worker.replace()
    assert worker.fault("steps_option", 0) is None


_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([2**53, 2**63, 10**18, "param/a", "batch/0"])
)


def _nested(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=4), children, max_size=4)


json_values = _leaves | _nested(_leaves | _nested(_leaves))
KEYS = (
    *("format", "step", "loss", "lr", "tau", "tau_squares", "epoch", "batch_from", "frozen_from", "batch_tree", "clip"),
    *("micro_batches", "micro_weights", "skipped", "autocast", "checksum", "window", "offset", "shape", "replicated"),
)


@FEW
@given(st.dictionaries(st.sampled_from(KEYS), json_values, max_size=6))
def test_any_metadata(metadata: dict[str, Any]) -> None:
    def read(data: bytes, folder: Path) -> None:
        (folder / step_name(1)).write_bytes(data)
        trajcheck.verify(folder, threads=1)
        open_trajectory(folder)

    tensors = {"param/a": np.zeros(2), "batch/0": np.zeros(2)}
    text = json.dumps({"format": 1, "step": 1, **metadata})
    assert fault(read, save(tensors, {"trajcheck": text}), memory=False) is None


@FEW
@given(st.text(max_size=30))
def test_any_words_as_a_reference(words: str) -> None:
    def read(data: bytes, folder: Path) -> None:
        if "\0" not in words:  # which no command line can hold
            resolve_references([words], open_trajectory(spread(folder / "run", run_files())), folder)

    assert fault(read, b"", memory=False) is None


def header(text: str) -> bytes:
    return len(text.encode()).to_bytes(8, "little") + text.encode()


def table(shape: list[int], end: int) -> bytes:
    return header(json.dumps({"a": {"dtype": "U8", "shape": shape, "data_offsets": [0, end]}}))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (table([99] * 50_000, 0), "dimensions"),
        (table([10**18], 10**18), "truncated"),
        (table([10**300, 0], 0), "63 bits"),
        (table([True], 1) + bytes(1), "natural"),
        (header('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"), "levels deep"),
        (header('{"a": ' + "[" * 500 + "]" * 500 + "}"), "levels deep"),
        (header('{"__metadata__": {"trajcheck": "{}"}\f"a": {}}'), "comma"),
        (header('{"__metadata__": {"a": "b", "a": "c"}}'), "twice"),
        ((10**12).to_bytes(8, "little") + bytes(100), "truncated"),
    ],
)  # fmt: skip
def test_headers_that_were_too_much(data: bytes, words: str, tmp_path: Path) -> None:
    def read(data: bytes, folder: Path) -> None:
        (folder / "x").write_bytes(data)
        with pytest.raises(StepFileError, match=words):
            read_header(str(folder / "x"))
        raise RunError("as it should")

    assert fault(read, data) is None


@pytest.mark.parametrize("levels", [150, 500, 990, 100_000])
def test_metadata_nested_deeply(levels: int, tmp_path: Path) -> None:
    """What the parser of JSON takes may be too deep for whoever prints or walks it."""
    metadata = f'{{"format": 1, "step": 1, "loss": {"[" * levels}{"]" * levels}}}'
    save_file({"param/a": np.zeros(2)}, tmp_path / step_name(1), {"trajcheck": metadata})
    with pytest.raises(StepFileError, match="'loss' is" if levels < MOST_LEVELS else "levels deep"):
        native.read_snapshot(tmp_path / step_name(1))


def test_levels_are_counted_outside_of_strings() -> None:
    words = "[{" * 5000
    assert parse_json(json.dumps({"a": words, "b": [words]})) == {"a": words, "b": [words]}
    assert len(parse_json(json.dumps([[i] for i in range(5000)]))) == 5000


def test_a_reference_too_long_for_a_path(plain_run: Path) -> None:
    with pytest.raises(TrajcheckError, match="neither a point of the run"):
        resolve_references(["x" * 5000], open_trajectory(plain_run), None)


def test_a_batch_path_of_more_digits_than_an_int_takes() -> None:
    nine, ten = "9" * 5000, "1" + "0" * 5000
    assert unflatten({ten: 1, nine: 2, "007": 3}) == (3, 2, 1)


@pytest.mark.parametrize("size", ["9" * 400, "1e999", "0.5", "9" * 308 + "TB", "9999999999 GB"])
def test_a_memory_that_is_no_size(size: str) -> None:
    with pytest.raises(UsageError, match="--memory"):
        _ = Options(memory=size).memory_bytes


@pytest.mark.parametrize("name", ["steps.csv", "references.csv", "layers.csv", "undefined.csv"])
def test_a_table_without_its_columns(name: str, tmp_path: Path) -> None:
    files = report_files()
    head, *rows = files[name].splitlines()
    quoted = b"\n".join([head + b',"x"', *(row + b",word" for row in rows)])  # a column of words that should be numbers
    for changed in (b"x,y\n1,2\n", b"", b'"step",step\n1\n', files[name].replace(b",", b";"), quoted):
        with pytest.raises(BadInputError, match=name):
            read_report(spread(tmp_path / "report", {**files, name: changed}))


@pytest.mark.parametrize("text", ["[batch]\nworkers = " + "9" * 5000, "[options]\nref = " + "[" * 5000])
def test_a_batch_file_that_is_too_much(text: str, tmp_path: Path) -> None:
    (tmp_path / "batch.toml").write_text(text)
    with pytest.raises(UsageError, match="not a TOML file"):
        read_config(tmp_path / "batch.toml")


def test_a_batch_file_whose_reference_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "batch.toml").write_text(f'[options]\nref = ["{"x" * 5000}", "a\\u0000b"]')
    assert read_config(tmp_path / "batch.toml").options.refs == ("x" * 5000, "a\0b")


def test_a_message_does_not_repeat_a_whole_table(tmp_path: Path) -> None:
    changed = report_files()["steps.csv"] + b"word" * 10_000 + b"\n"
    with pytest.raises(BadInputError) as caught:
        read_report(spread(tmp_path / "report", {**report_files(), "steps.csv": changed}))
    assert len(str(caught.value)) < 2000


def test_tensor_names_make_no_files(tmp_path: Path) -> None:
    """A run whose tensors are named like paths, analyzed to the end."""
    names = ["../../x", "/tmp/trajcheck-outside", "a\0b", "n" * 3000, "steps.csv", "ü\n,\"'", ""]
    folder = tmp_path / "run"
    folder.mkdir()
    for step in range(4):
        tensors = {f"param/{name}": np.full(3, step + i, np.float32) for i, name in enumerate(names)}
        tensors |= {f"grad/{name}": np.full(3, 1.0, np.float32) for name in names}
        text = json.dumps({"format": 1, "step": step, "lr": [0.1], "loss": 1.0})
        save_file(tensors, folder / step_name(step), {"trajcheck": text})

    def read(data: bytes, place: Path) -> None:
        trajcheck.verify(folder)
        trajcheck.analyze(folder, ["final", "mean:2"], layers=True, out=place / "report")

    assert fault(read, b"", memory=False) is None


def test_a_run_with_everything_is_whole(tmp_path: Path) -> None:
    run = spread(tmp_path / "run", full_run_files())
    assert trajcheck.verify(run).runs[0].damage == []
    assert len(open_trajectory(run).snapshots) == 3
