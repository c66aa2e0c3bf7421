"""index.html of a batch: what stands in its cells, where its links lead, and that nobody's name becomes its code."""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from index_rows import NASTY, done, failed, with_report

from trajcheck.commands.batch.command import batch
from trajcheck.commands.batch.options import BatchConfig
from trajcheck.commands.batch.page import document, write_page
from trajcheck.commands.batch.page_cells import duration, moment
from trajcheck.commands.batch.page_columns import MOST_FIELDS
from trajcheck.reports.quantities.catalogue import QUANTITIES

PLAIN = BatchConfig(plots=False)


class Parsed(HTMLParser):
    """The page's body rows, each a list of (text, title, target of the link), and everything else by element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.rows: list[list[tuple[str, str, str]]] = []
        self.said: dict[str, str] = {"h1": ""}
        self._cell: list[str] | None = None
        self.feed(page)
        self.close()
        self.title = self.said["h1"].strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes |= set(given)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self._cell = ["", given.get("title", ""), ""]
        elif tag == "a" and self._cell is not None:
            self._cell[2] = given["href"]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            text, title, target = self._cell
            self.rows[-1].append((text, title, target))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell[0] += data
        elif self.tags and self.tags[-1] in self.said:
            self.said[self.tags[-1]] += data

    @property
    def columns(self) -> list[str]:
        return [text for text, *_ in self.rows[1]]

    def cell(self, column: str, row: int = 0) -> tuple[str, str, str]:
        return self.rows[2 + row][self.columns.index(column)]


def page_of(out: Path, *rows: Mapping[str, Any]) -> Parsed:
    return Parsed(document(out, rows))


# -- cells ------------------------------------------------------------------------------------------------------------


def test_the_headline_stands_in_the_cells(tmp_path: Path) -> None:
    page = page_of(tmp_path, done("/runs/a"))
    assert (page.cell("ref")[0], page.cell("sample")[0], page.cell("seed")[0]) == ("final", "own", "3")
    assert page.cell("cosine") == ("0.187 ± 0.056 path", "mean of cos_skip", "")
    assert page.cell("ratio") == ("1.4", "num 89.9, den 64.1", "")
    assert [page.cell(name)[0] for name in ("convex", "not", "?")] == ["96.2%", "3.75%", "0%"]
    assert page.cell("steps") == ("121", "steps 0 to 120", "")
    assert page.cell("parameters")[0] == "1,210"
    assert page.cell("analyzed")[0] == "2026-01-31 22:05:09"
    assert page.cell("duration")[0] == "3.2 s"
    assert page.cell("warnings")[0] == "2"
    assert page.title == "1 run below /runs"


def test_the_previous_iterate_is_a_reference(tmp_path: Path) -> None:
    page = page_of(tmp_path, done("/runs/a"))
    assert page.cell("ref", 1)[0] == "x_(t-1)" and page.cell("run", 1)[0] == "a"
    assert page.cell("ratio", 1) == ("-1.7", "num 3.5, den -2.1", "")
    assert [page.cell("Σ loss change", row)[0] for row in (0, 1)] == ["", "-2.07"]
    assert page.cell("cosine", 1)[0] == ""


def test_what_the_cosine_is_of_is_said(tmp_path: Path) -> None:
    page = page_of(tmp_path, done("/runs/a", q__cosine_of="cos"))
    assert page.cell("cosine") == ("0.187* ± 0.056 path", "mean of cos", "")


def test_an_undefined_value_is_a_dash_with_its_reason(tmp_path: Path) -> None:
    row = done("/runs/a", q__cosine_error=None, q__convexity_ratio=None, q__convex=None)
    row["rows"][0]["reasons"] = {"convexity_ratio": "den is below its resolution"}
    page = page_of(tmp_path, row, done("/runs/b"))
    assert page.cell("cosine") == ("0.187", "mean of cos_skip", "")
    assert page.cell("ratio") == ("–", "den is below its resolution", "")
    assert page.cell("convex")[0] == "–"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, True, "3", [1], {}, None])
def test_a_value_of_another_kind_is_an_empty_cell(tmp_path: Path, value: Any) -> None:
    names = ("q__cosine", "q__cosine_of", "q__convexity_num", "q__convexity_ratio", "q__convex")
    others = ("recorded_steps", "duration", "warnings", "analyzed", "message", "status", "report", "sample", "user")
    row = done("/runs/a", **dict.fromkeys((*names, *others), value))
    page = page_of(tmp_path, row, done("/runs/b"))
    assert [page.cell(name)[0] for name in ("cosine", "ratio", "convex", "steps", "duration", "warnings")] == ["–"] * 6
    assert page_of(tmp_path, {**row, "rows": value}, done("/runs/b")).cell("ref")[0] == ""


def test_a_message_is_there_without_the_path_that_stands_beside_it(tmp_path: Path) -> None:
    page = page_of(tmp_path, failed("/runs/a", "/runs/a/step-7.safetensors: ends\nearly"), failed("/runs/b", "x" * 999))
    assert page.cell("message")[0] == "step-7.safetensors: ends early"
    assert page.cell("message", 1)[0] == "x" * 399 + "…"
    assert page.cell("status")[0] == "failed"
    assert "message" not in page_of(tmp_path, done("/runs/a")).columns


def test_of_many_fields_the_first_have_columns(tmp_path: Path) -> None:
    fields = {f"field{n}": n for n in range(MOST_FIELDS + 2)}
    rows = [done("/runs/a", user=fields)]
    page = page_of(tmp_path, *rows)
    assert [name for name in page.columns if name.startswith("field")] == list(fields)[:MOST_FIELDS]
    assert f"In index.csv alone are user.field{MOST_FIELDS}, user.field{MOST_FIELDS + 1}.</p>" in document(
        tmp_path, rows
    )


def test_runs_of_several_archives_and_no_runs(tmp_path: Path) -> None:
    page = page_of(tmp_path, done("/one/a"), done("/two/b"))
    assert page.title == "2 runs" and page.cell("run", 2)[0] == "/two/b"
    assert page_of(tmp_path).title == "0 runs"


def test_every_column_is_explained(tmp_path: Path) -> None:
    values: dict[str, Any] = {f"q__{name}": 0.5 for name in QUANTITIES}
    row = done("/runs/a", **values)
    page = document(tmp_path, [row, failed("/runs/b", "why")])
    said = re.findall(r"<dt>(.*?)</dt><dd>(.+?)</dd>", page)
    columns = Parsed(page).columns
    assert [html.unescape(name) for name, _ in said] == [name for name in columns if name != "seed"]
    assert len(columns) > 30


def test_times_in_words() -> None:
    assert [duration(each) for each in (0, 59.94, 59.95, 245, 3599.6, 7500, 359_999)] == [
        *("0.0 s", "59.9 s", "1 min 00 s", "4 min 05 s", "1 h 00 min", "2 h 05 min", "100 h 00 min"),
    ]
    assert moment("2026-01-31T22:05:09+00:00") == "2026-01-31 22:05:09" and moment("yesterday") == "yesterday"


# -- links ------------------------------------------------------------------------------------------------------------


def test_the_link_leads_to_the_page_or_to_the_table(tmp_path: Path) -> None:
    files = ("steps.csv", "summary.json", "report.html")
    drawn = with_report(tmp_path, done("/runs/a"), "runs/a", *files)
    plain = with_report(tmp_path, done("/runs/b"), "runs/b", *files[:2])
    outdated = with_report(tmp_path, done("/runs/c"), "runs/c", *files)
    os.utime(tmp_path / "runs/c/report.html", (0, 0))
    earlier = with_report(tmp_path, failed("/runs/d", "why"), "runs/d", *files)
    page = page_of(tmp_path, drawn, plain, outdated, earlier, failed("/runs/e", "why"))
    assert [page.cell("run", row)[::2] for row in (0, 2, 4, 6, 7)] == [
        ("a", "./runs/a/report.html"),
        ("b", "./runs/b/steps.csv"),
        ("c", "./runs/c/steps.csv"),
        ("d (earlier report)", "./runs/d/report.html"),
        ("e", ""),
    ]


@pytest.mark.parametrize("name", ["javascript:alert(1)", "a b%20#x?y", "\u202egnp", os.fsdecode(b"\xff\xfe"), 'q"><i>'])
def test_a_link_leads_to_the_folder_whatever_its_name(tmp_path: Path, name: str) -> None:
    row = with_report(tmp_path, done(f"/runs/{name}"), name, "steps.csv")
    target = page_of(tmp_path, row).cell("run")[2]
    assert target.startswith("./") and re.fullmatch(r"[\w./%~()-]+", target)
    assert unquote_to_bytes(target) == b"./" + os.fsencode(name) + b"/steps.csv"


# -- anybody's names --------------------------------------------------------------------------------------------------


def test_no_name_becomes_code_and_what_cannot_be_seen_is_shown(tmp_path: Path) -> None:
    def row_of(word: str) -> dict[str, Any]:
        user = {word: word}
        row = done(f"/runs/{word}", (word,), message=word, status=word, analyzed=word, user=user, q__cosine_of=word)
        row["rows"][0] |= {"sample": word, "reasons": {"convexity_ratio": word}}
        row["rows"][0]["values"]["convexity_ratio"] = None
        return row

    row = row_of(NASTY)
    plain, nasty = (page_of(tmp_path, each, done("/runs/b", ())) for each in (row_of("plain"), row))
    assert sorted(nasty.tags) == sorted(plain.tags)
    assert nasty.attributes == plain.attributes
    shown = '</script><b onclick="x">\'&\\u202egnp.exe\\n\\x07\\x80'
    assert nasty.cell("run")[0] == nasty.cell("status")[0] == shown
    assert nasty.cell("ratio")[1] == nasty.cell("ref")[1].replace("…", "") == shown
    assert nasty.cell("message")[0] == shown.replace("\\n", " ")
    page = document(tmp_path, [row])
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e\ud800-\udfff]", page)
    assert page.count("<script") == 2


def test_the_page_allows_its_own_script_and_style_alone(tmp_path: Path) -> None:
    page = document(tmp_path, [done("/runs/a", ("final", "init"))])
    policy = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)[0]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    script, style = (re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[0] for tag in ("script", "style"))
    for rule, source in (("script-src", script), ("style-src", style)):
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
    assert not re.search(r"https?:|//\w|@import|url\(|style=", page)


# -- a batch ----------------------------------------------------------------------------------------------------------


def test_a_batch_with_nothing_new_leaves_the_page_alone(plain_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "reports"
    batch([tmp_path], out, PLAIN)
    page = out / "index.html"
    assert Parsed(page.read_text()).cell("run")[::2] == ("run", f"./{tmp_path.name}/run/steps.csv")
    before = (page.read_bytes(), page.stat().st_mtime_ns, page.stat().st_ino)
    batch([tmp_path], out, PLAIN)
    assert (page.read_bytes(), page.stat().st_mtime_ns, page.stat().st_ino) == before
    page.write_text("torn")
    batch([tmp_path], out, PLAIN)
    assert page.read_bytes() == before[0]


def test_a_batch_that_has_nothing_to_do_imports_neither_pandas_nor_a_drawing_package(
    plain_run: Path, tmp_path: Path
) -> None:
    batch([tmp_path], tmp_path / "reports", PLAIN)
    script = (
        "import sys\nfrom trajcheck.commands.batch.command import batch\n"
        f"assert batch([{str(tmp_path)!r}], {str(tmp_path / 'reports')!r}).unchanged == 1\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"pandas", "torch", "scipy", "matplotlib", "plotly", "PIL"} & set(done.stdout.split()) == set()


def test_what_cannot_be_written_says_so(tmp_path: Path) -> None:
    from trajcheck.errors import OutputError

    (tmp_path / "index.html").mkdir()
    with pytest.raises(OutputError, match=r"index\.html: cannot be written"):
        write_page(tmp_path, [])
