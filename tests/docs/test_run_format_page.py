"""docs/run-format.md: what the reader of the format knows, and what the Recorder writes, is on the page."""

from __future__ import annotations

import json
import re

from documents import DOCS, code_words, fenced
from places import PACKAGE, SAMPLES

from trajcheck.files.safetensors_header import read_header
from trajcheck.runs.formats.native.description import parse_run_info
from trajcheck.runs.optimizer_settings import RunSettings

PAGE = DOCS / "run-format.md"
WORDS = set(code_words(PAGE.read_text()))
FORMAT = PACKAGE / "runs" / "formats" / "native"


def test_every_key_that_is_read_is_explained() -> None:
    source = "".join(path.read_text() for path in sorted(FORMAT.glob("*.py")))
    keys = set(re.findall(r'entry\(\w+, "(?:window\.)?(\w+)"|^    "(\w+)": as_', source, re.MULTILINE))
    keys = {name for found in keys for name in found if name}
    assert {"step", "loss", "lr", "from", "grad_dot_offset", "offset", "batches"} <= keys
    named = {word for each in WORDS for word in re.findall(r"\w+", each)}
    assert keys <= named, keys - named


def test_every_section_that_is_read_is_explained() -> None:
    source = "".join(path.read_text() for path in sorted(FORMAT.glob("*.py")))
    sections = set(re.findall(r'(?:section|sections\.get)\("(\w+)"', source)) | {"master"}
    assert {"param", "grad", "batch", "buffer", "rng", "window"} <= sections
    assert sections <= {word.partition("/")[0] for word in WORDS}


def test_what_the_sample_runs_hold_is_explained() -> None:
    for path in sorted(SAMPLES.glob("*/step-*.safetensors"))[::40]:
        header = read_header(str(path))
        assert set(json.loads(header.metadata["trajcheck"])) <= WORDS
        assert set(header.layout.sections) <= {word.partition("/")[0] for word in WORDS}
    shown = json.loads(fenced(PAGE, "json")[1].text)
    for path in sorted(SAMPLES.glob("*/run.json")):
        assert set(json.loads(path.read_text())) <= set(shown) | {"ranks"}


def test_the_examples_are_of_the_format() -> None:
    metadata, run = (json.loads(block.text) for block in fenced(PAGE, "json"))
    assert set(metadata) <= WORDS and metadata["format"] == 1
    assert RunSettings(parse_run_info(run), ()).plain_sgd
