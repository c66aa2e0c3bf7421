"""Names and words of a run that is a stranger's: nothing of them acts on a terminal, a log, a page or a table."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.conftest import Outcome
from trajcheck.cli.batch_log import batch_log
from trajcheck.readable import LONGEST

Cli = Callable[..., Outcome]

#: Acts on a terminal, forges a line, turns the order of letters, is half a letter, and is much.
HOSTILE = "\x1b]0;x\x07\x9b2J\nwarning: forged\r\u202etxt\ud800"
WORDS = ("warning: forged", "trajcheck: error: forged")


def write(folder: Path, **description: Any) -> Path:
    """Four steps whose tensors, batch, optimizer and settings have hostile names."""
    folder.mkdir(parents=True)
    said = {"format": 1, "id": HOSTILE, "optimizer": {"name": HOSTILE, "groups": [{"lr": 0.1, HOSTILE: HOSTILE}]}}
    (folder / "run.json").write_text(json.dumps({**said, "user": {HOSTILE: HOSTILE}, **description}))
    for step in range(4):
        x = np.array([[1.0, -2.0]]) / (step + 1)
        tensors = {"param/w\x1b[31m\nw\r\u202e": x, "grad/w\x1b[31m\nw\r\u202e": 0.5 * x}
        meta = {"format": 1, "step": step, "lr": [0.1], "loss": 1.0 / (step + 1), "omitted": {"replay": HOSTILE}}
        save_file(tensors, folder / f"step-{step:09d}.safetensors", {"trajcheck": json.dumps(meta)})
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("archive\x1b[31m") / "r\nun")


def harmless(text: str) -> bool:
    lines = text.split("\n")
    forged = [line for line in lines if line.lstrip().startswith(WORDS)]
    return all(line.isprintable() and len(line) <= LONGEST for line in lines) and not forged


@pytest.mark.parametrize("form", ["table", "json", "markdown"])
def test_analyze(form: str, run: Path, tmp_path: Path, cli: Cli) -> None:
    done = cli("analyze", run, "--out", tmp_path / "report", "--layers", "--no-plots", "--format", form)
    assert done.code == 0 and harmless(done.out) and harmless(done.err), done
    with open(tmp_path / "report" / "layers.csv", encoding="utf-8", newline="") as file:
        names = {row["tensor"] for row in csv.DictReader(file)}
    assert names == {"w\\x1b[31m\nw\r\\u202e"}  # in one cell
    for name in ("layers", "undefined"):
        text = (tmp_path / "report" / f"{name}.csv").read_text(encoding="utf-8")
        assert not re.search("[\x00-\x08\x0e-\x1f\x7f-\x9f\u202e]", text)
    assert harmless((tmp_path / "report" / "undefined.csv").read_text())


@pytest.mark.parametrize(
    "words",
    [
        ("analyze", "{run}", "--dry-run"), ("verify", "{run}"), ("verify", "{run}/nothing\x1b[2J"),
        ("analyze", "{run}", "--ref", "step:\x1b[2J\ntrajcheck: error: forged"),
        ("analyze", "{run}", "--metrics", "\x1b[m"),
        ("analyze", "{run}", "--layers", "--group", "(\x1b[m"), ("\x1b[2J",), ("analyze", "a", "b\x1b[2J\n"),
        ("table", "{run}", "--format", "\x1b[2J"), ("report", "{run}\x1b[2J"), ("compare", "{run}", "{run}"),
    ],
)  # fmt: skip
def test_calls_that_are_refused_or_only_say(words: tuple[str, ...], run: Path, tmp_path: Path, cli: Cli) -> None:
    out = () if words[0] in ("verify", "table", "report") or len(words) == 1 else ("--out", tmp_path / "report")
    done = cli(*(word.replace("{run}", str(run)) for word in words), *out)
    assert harmless(done.out) and harmless(done.err), done
    assert "a bug" not in done.err


def test_batch(run: Path, tmp_path: Path, cli: Cli) -> None:
    write(run.parent / "broken\r/archive/other", format=2)
    done = cli("batch", run.parent, "--out", tmp_path / "out", "--log", tmp_path / "log", "--no-plots")
    assert done.code == 4 and harmless(done.out) and harmless(done.err), done
    log = (tmp_path / "log").read_text()
    assert harmless(log) and len(log.splitlines()) == 2
    index = (tmp_path / "out" / "index.csv").read_bytes()
    rows = list(csv.reader(io.StringIO(index.decode("utf-8"), newline="")))
    assert len({len(row) for row in rows}) == 1 and len(rows) == 4
    assert harmless((tmp_path / "out" / "index.html").read_text())


@pytest.fixture
def line() -> Iterator[str]:
    yield f"{HOSTILE * 2}{'x' * 10**6}"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_log_has_a_line_a_record(
    as_json: bool, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with batch_log(tmp_path / "log", as_json=as_json, verbose=True):
        logging.getLogger("trajcheck.batch").warning("%s: failed", line)
    (written,) = (tmp_path / "log").read_text().splitlines()
    assert written.isprintable() and len(written) < 2 * LONGEST
    assert harmless(capsys.readouterr().err)


def test_a_log_on_a_full_disk_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with batch_log(Path("/dev/full"), as_json=False, verbose=False):
        for _ in range(3):
            logging.getLogger("trajcheck.batch").info("a run: done")
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "No space left" in error
