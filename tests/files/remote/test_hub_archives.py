"""hf://ORG/NAME@step*: a repository with a revision a step, read by ranges, gives what its copy on a disk gives."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants as hub_constants
import numpy as np
import pytest
from hf_archives import write_weights
from hub_server import Hub, serving

import trajcheck
from trajcheck.commands.convert.command import convert
from trajcheck.commands.inspect.command import inspect
from trajcheck.commands.verify.command import verify
from trajcheck.errors import RunError
from trajcheck.files.remote import ranges, staging
from trajcheck.files.remote.file import BLOCK, forget
from trajcheck.files.remote.opening import forget_listings
from trajcheck.reports.making.folder import default_folder
from trajcheck.stream import row_pass

ADDRESS = "hf://lab/model@*step*"
FEW = "hf://lab/model@*-tokens[0-7]B"
COUNT, SHAPES = 30, {"h.weight": (250, 200), "h.bias": (250,), "head.weight": (20, 200)}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a revision; the last one in two files."""
    folder, stream = tmp_path_factory.mktemp("archive"), np.random.default_rng(3)
    point = {name: stream.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    for step in range(COUNT):
        write_weights(folder / f"stage1-step{1000 * step}-tokens{step}B", point)
        point = {n: (0.98 * x + 0.01 * stream.normal(size=x.shape)).astype(np.float32) for n, x in point.items()}
    return folder


@pytest.fixture
def hub(archive: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    forget()
    forget_listings()
    revisions = {folder.name: folder for folder in archive.iterdir()}
    with serving({**revisions, "main": archive / "stage1-step0-tokens0B"}) as server:
        monkeypatch.setattr(hub_constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(ranges, "PAUSE", 0.001)
        yield server


def whole(archive: Path) -> int:
    return sum(file.stat().st_size for file in archive.rglob("*.safetensors"))


def tables(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.csv")}


@pytest.fixture(scope="module")
def local(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The report of the copy on this disk."""
    out = tmp_path_factory.mktemp("local") / "report"
    trajcheck.analyze(archive, refs=["init", "final"], out=out)
    return tables(out)


@pytest.fixture(scope="module")
def few_local(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same of the first eight revisions."""
    out = tmp_path_factory.mktemp("few")
    for step in range(8):
        shutil.copytree(archive / f"stage1-step{1000 * step}-tokens{step}B", out / "run" / f"step{1000 * step}")
    trajcheck.analyze(out / "run", refs=["init", "final"], out=out / "report")
    return tables(out / "report")


def test_what_it_is_without_a_whole_file(archive: Path, hub: Hub) -> None:
    here, there = inspect(archive), inspect(ADDRESS)
    assert there.steps == here.steps == tuple(range(0, 1000 * COUNT, 1000))
    assert (there.parameters, there.bytes, there.files) == (here.parameters, whole(archive), COUNT)
    assert str(there.path) == ADDRESS and there.format == "a folder a revision"
    headers = sum(asked == f"bytes=0-{BLOCK - 1}" for _, asked, _ in hub.seen if asked) // 2
    assert headers == COUNT and hub.sent < 0.5 * whole(archive)
    sizes = [int(asked.split("-")[1]) - int(asked[6:].split("-")[0]) + 1 for _, asked, _ in hub.seen if asked]
    assert max(sizes) == BLOCK


def test_verify_reads_headers_alone(archive: Path, hub: Hub) -> None:
    found = verify(ADDRESS)
    assert [run.steps for run in found.runs] == [COUNT] and not found.damaged
    assert hub.sent < 0.5 * whole(archive)


def test_equal_revisions_are_found_by_the_listing(hub: Hub, archive: Path) -> None:
    hub.revisions["stage1-step4000-tokens4B"] = hub.revisions["stage1-step29000-tokens29B"]
    [audit] = verify(ADDRESS).audits
    assert [(each.steps, each.finding, each.severity) for each in audit.damage] == [
        ((4000,), "equal content", "damage")
    ]
    assert "one hash in the listing" in audit.damage[0].evidence
    assert hub.sent < whole(archive)


@pytest.mark.parametrize("memory", [None, "3MB"])
def test_the_numbers_of_the_copy_to_the_last_digit(
    memory: str | None, local: dict[str, bytes], archive: Path, hub: Hub, tmp_path: Path
) -> None:
    trajcheck.analyze(ADDRESS, refs=["init", "final"], out=tmp_path / "report", memory=memory)
    assert tables(tmp_path / "report") == local
    assert hub.sent < 2 * whole(archive)  # with the audit's sample, by blocks of 32 kB
    said = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert ADDRESS in json.dumps(said)


def test_memory_bounds_what_is_brought(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, sizes = np.random.default_rng(4), []
    for step in range(3):
        write_weights(tmp_path / f"step{step}", {"w": stream.normal(size=(800, 1000)).astype(np.float32)})
    hub.revisions = {folder.name: folder for folder in tmp_path.iterdir()}
    bring = staging.Staging.bring

    def watched(self: staging.Staging, wanted: list[tuple[str, int, int]]) -> list[int]:
        found = bring(self, wanted)
        sizes.append(os.fstat(self.descriptor).st_size)
        return found

    monkeypatch.setattr(staging.Staging, "bring", watched)
    monkeypatch.setattr(row_pass, "BROUGHT", 1_000_000)
    trajcheck.analyze("hf://lab/model@step*", out=tmp_path / "report")
    assert sum(sizes) == 3 * 3_200_000 and max(sizes) == 3 * 4 * 131_072


def test_what_is_saved_is_not_fetched_again(hub: Hub, archive: Path, tmp_path: Path) -> None:
    trajcheck.analyze(FEW, out=tmp_path / "report")
    before = hub.sent
    trajcheck.analyze(FEW, out=tmp_path / "report")
    assert hub.sent - before < 2.5 * whole(archive) / COUNT  # ends of a run are looked at for NaN


def _every_third(what: str) -> Callable[[int, str], str]:
    return lambda number, revision: what if number % 3 == 0 else ""


@pytest.mark.parametrize("what", ["fails", "truncated"])
def test_what_may_mend_itself_is_tried_again(what: str, few_local: dict[str, bytes], hub: Hub, tmp_path: Path) -> None:
    hub.trouble = _every_third(what)
    trajcheck.analyze(FEW, refs=["init", "final"], out=tmp_path / "report")
    assert tables(tmp_path / "report") == few_local


def test_a_server_that_is_gone(hub: Hub) -> None:
    hub.trouble = lambda number, revision: "fails"
    with pytest.raises(RunError, match=r"tokens\d+B/.*: cannot be read: the server answers 503\. Is the network there"):
        inspect(FEW)
    assert hub.requests < 200


WRONG = {
    "changed": "was changed while it was being read",
    "another size": r"has 217,\d{3} bytes, and 217,\d{3} by the listing",
    "more": "gives more than the",
    "whole": "gives whole files alone, no ranges",
}


@pytest.mark.parametrize("what", WRONG)
def test_answers_that_do_not_fit_are_refused(what: str, hub: Hub, tmp_path: Path) -> None:
    hub.trouble = lambda number, revision: what if "step7000-" in revision and number > 26 else ""
    with pytest.raises(RunError, match=rf"hf://lab/model@stage1-step7000-tokens7B/model\.safetensors.*{WRONG[what]}"):
        trajcheck.analyze(FEW, out=tmp_path / "report")


def test_another_content_than_was_listed(hub: Hub, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = hub.listing

    def lying(folder: Path) -> list[dict[str, object]]:
        found = inner(folder)
        for each in found:
            if "step7000-" in folder.name and "lfs" in each:
                each["lfs"]["oid"] = "0" * 64
        return found

    monkeypatch.setattr(hub, "listing", lying)
    assert list(inspect(FEW).left_out) == [7000]
    with pytest.raises(RunError, match=r"step7000.*is another file than the listing says"):
        trajcheck.analyze(FEW)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b"])
def test_names_that_lead_out(name: str, hub: Hub) -> None:
    hub.names = lambda own: name
    with pytest.raises(RunError, match=r"would lead out of it|no run of a format"):
        inspect(FEW)


def test_addresses(hub: Hub) -> None:
    with pytest.raises(RunError, match="no branch or tag of lab/model is called 'ckpt\\*'; it has"):
        inspect("hf://lab/model@ckpt*")
    with pytest.raises(RunError, match="hf://lab/other@step\\*: the hub does not list it: "):
        inspect("hf://lab/other@step*")
    with pytest.raises(RunError, match="expected hf://ORG/NAME@REVISION"):
        inspect("hf://lab")
    with pytest.raises(RunError, match=r"read from elsewhere\. A revision a step is given by a pattern"):
        inspect("hf://lab/model")  # one revision, one file
    assert default_folder(Path(ADDRESS)) == Path("reports/lab--model@-step")


def test_the_token_stays_with_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.cdn = hub.endpoint.replace("127.0.0.1", "localhost")
    inspect(FEW)
    with_token = {path.split("/")[1] for path, _, token in hub.seen if token}
    assert with_token == {"api", "lab"}, "its own host, and nobody else"


def test_converted_without_a_copy_of_the_files(hub: Hub, archive: Path, tmp_path: Path) -> None:
    convert(FEW, tmp_path / "run", steps="0:3000:1000")
    trajcheck.analyze(tmp_path / "run", out=tmp_path / "report")
    assert inspect(tmp_path / "run").steps == (0, 1000, 2000)
