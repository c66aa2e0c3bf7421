"""commands/table: the rows, means and errors of a table, what it says of dashes, and that names do not become code."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from plain_run_files import Outcome
from saved_reports import analysis, summary

import trajcheck
from trajcheck.errors import BadInputError, OutputError, UsageError

Cli = Callable[..., Outcome]
NASTY = "a|b_c & 100% $x$ {y} <b> \\end{document} #~^ `q` [l](http://e) \u202e\n\x07λ"


def report(folder: Path, name: str, cosine: float | None, **more: Any) -> Path:
    """A report of a run of which the headline's cosine is known, and some of its tables are."""
    refs, samples = more.pop("refs", ("final",)), more.pop("samples", ("own",))
    about = summary(refs, samples)
    heads = about["headline"].get("samples") or {samples[0]: about["headline"]}
    for head in heads.values():
        head["references"] = {ref: dict(values) for ref, values in head["references"].items()}
        for values in head["references"].values():
            shares = {"convex": 0.5, "not_convex": 0.25, "undetermined": 0.25}
            values |= {"cosine": cosine, "cosine_error": 0.0561, "cosine_of": "cos_skip", "shares": shares}
    run = {"path": f"/runs/{name}", "id": name, "optimizer": "SGD", "last_step": 39, "user": more.pop("user", {})}
    return analysis(folder / name, refs, samples=samples, run=run, headline=about["headline"], **more)


def cells(text: str) -> list[list[str]]:
    """The cells of a Markdown table, without the rule below its heading."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [found[0], *found[2:]]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row_a_run_with_its_own_error(tmp_path: Path) -> None:
    folders = [report(tmp_path, name, cosine) for name, cosine in (("a", 0.1874), ("b", -0.02))]
    text = trajcheck.table(folders, refs=["final"], columns=["cosine", "convex"])
    assert cells(text) == [
        ["run", "cosine", "convex \\[%\\]"],
        ["a", "0.19 ± 0.06", "50.0"],
        ["b", "-0.02 ± 0.06", "50.0"],
    ]
    assert "- all rows: reference final" in text and "- all rows: sample own" in text
    assert "- ± of cosine: one standard error along the path" in text
    exact = rows(trajcheck.table(folders, "csv", refs=["final"], columns=["cosine", "convex"]))
    assert exact[0] == {
        **{"run": "a", "reference": "final", "sample": "own", "runs": "1"},
        **{"cosine": "0.1874", "cosine_error": "0.0561", "convex": "0.5"},
    }


def test_errors_of_several_kinds_have_columns_of_their_own(tmp_path: Path) -> None:
    folder = report(tmp_path, "a", 0.25, samples=("own", "probe"))
    about = json.loads((folder / "summary.json").read_text())
    about["headline"]["samples"]["probe"]["references"]["final"] |= {"cosine_error": None, "cosine_se": 0.125}
    (folder / "summary.json").write_text(json.dumps(about))
    text = trajcheck.table([folder], refs=["final"], columns=["cosine", "convex"])
    assert cells(text) == [
        ["run", "sample", "cosine", "± path", "± batch", "convex \\[%\\]"],
        ["a", "own", "0.25", "0.06", "", "50.0"],
        ["a", "probe", "0.25", "", "0.12", "50.0"],
    ]
    assert "- ± in columns ± batch: one standard error over the probe batches" in text
    own, probe = rows(trajcheck.table([folder], "csv", refs=["final"], columns=["cosine"]))
    assert (own["cosine_error"], own["cosine_se"], probe["cosine_error"], probe["cosine_se"]) == (
        "0.0561",
        "",
        "",
        "0.125",
    )


def test_means_over_runs_that_agree_in_fields(tmp_path: Path) -> None:
    values = {"g/s0": 0.1, "g/s1": 0.4, "g/s2": 0.7, "h/s0": 0.5}
    folders = [report(tmp_path, name, value, user={"lr": len(name)}) for name, value in values.items()]
    text = trajcheck.table(folders, group_by=["group"], refs=["final"], columns=["cosine"])
    mean, error = np.mean([0.1, 0.4, 0.7]), np.std([0.1, 0.4, 0.7], ddof=1) / 3**0.5
    assert cells(text) == [["group", "n", "cosine"], ["g", "3", "0.40 ± 0.17"], ["h", "1", "0.500"]]
    exact = rows(trajcheck.table(folders, "csv", group_by=["group"], refs=["final"], columns=["cosine"]))
    np.testing.assert_allclose([float(exact[0]["cosine"]), float(exact[0]["cosine_se"])], [mean, error], rtol=1e-12)
    assert exact[1]["cosine_se"] == "" and [each["runs"] for each in exact] == ["3", "1"]
    several = trajcheck.table(folders, group_by=["user.lr", "part1"], refs=["final"], columns=["cosine", "name"])
    assert cells(several)[0] == ["lr", "part1", "n", "cosine", "name"]
    assert [row[-1] for row in cells(several)[1:]] == ["mixed", "s0"]
    with pytest.raises(UsageError, match=r"'user.nothing': is no field of these runs; they have user.lr, optimizer"):
        trajcheck.table(folders, group_by=["user.nothing"])


def test_a_mean_over_fewer_runs_says_so_and_a_dash_has_its_reason(tmp_path: Path) -> None:
    folders = [report(tmp_path, f"g/s{n}", value) for n, value in enumerate((0.1, 0.3, None))]
    undefined = pd.DataFrame(
        [["references", "cos_skip", "final", "own", "0-39", "no gradient was recorded at this step"]],
        columns=["table", "column", "ref", "sample", "steps", "reason"],
    )
    undefined.to_csv(folders[2] / "undefined.csv", index=False)
    text = trajcheck.table(folders, group_by=["group"], refs=["final"], columns=["cosine"])
    assert cells(text)[1] == ["g", "3", "0.20 ± 0.10 (2 of 3)"]
    one = trajcheck.table(folders, refs=["final"], columns=["cosine"])
    assert cells(one)[3] == ["s2", "–"]
    for each in (text, one):
        assert re.search(
            r"- no cosine towards final, sample own \(.*s2\): the report has no|- no cosine .*gradient", each
        )


def test_columns_of_the_tables_as_one_number(tmp_path: Path) -> None:
    folder = report(tmp_path, "a", 0.1, samples=("own", "probe"))
    table = pd.read_csv(folder / "references.csv")
    known = table[(table.ref == "final") & (table["sample"] == "probe")].rsi
    names = ["mean:rsi", "first:rsi", "last:rsi", "min:rsi", "max:rsi", "last:path_length"]
    (row,) = rows(trajcheck.table([folder], "csv", refs=["final"], samples=["probe"], columns=names))
    found = [float(row[name]) for name in names[:-1]]
    np.testing.assert_allclose(
        found, [known.mean(), known.iloc[0], known.iloc[-1], known.min(), known.max()], rtol=1e-12
    )
    assert row["last:path_length"] == ""  # of the path, not towards references
    with pytest.raises(UsageError, match=r"--columns 'mean:nothing': is no column; there are cosine, "):
        trajcheck.table([folder], columns=["mean:nothing"])


def test_rows_of_a_run_stand_together_in_the_order_of_the_references(tmp_path: Path) -> None:
    folders = [report(tmp_path, name, 0.1, refs=("final", "init")) for name in ("a", "b")]
    text = trajcheck.table(folders, refs=["init", "final"], columns=["cosine"])
    assert [row[:2] for row in cells(text)[1:]] == [["a", "init"], ["a", "final"], ["b", "init"], ["b", "final"]]
    latex = trajcheck.table(folders, "latex", refs=["init", "final"], columns=["cosine"])
    lines = latex.splitlines()
    assert lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")] == [
        r"a & init & $0.10 \pm 0.06$ \\",
        r" & final & $0.10 \pm 0.06$ \\",
        r"\addlinespace",
        r"b & init & $0.10 \pm 0.06$ \\",
        r" & final & $0.10 \pm 0.06$ \\",
    ]
    assert r"\begin{tabular}{llr}" in lines and r"run & reference & $\cos$ \\" in lines


def test_names_are_escaped(tmp_path: Path) -> None:
    folders = [report(tmp_path, name, 0.1, user={NASTY: NASTY, "x": name}) for name in ("a", "b")]
    latex = trajcheck.table(
        folders, "latex", refs=["final"], columns=["cosine", "user." + trajcheck_name(NASTY)], caption=NASTY
    )
    body = "\n".join(line for line in latex.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[#%]|(?<!\\)_|\\end\{document\}", body)
    assert (
        "{[}U+03BB{]}" in body
    )  # a [ after the end of a row would be an argument and r"\textbackslash{}end\{document\}" in body
    rows_ = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows_} == {2}
    assert all(line.count("$") % 2 == line.count(r"\$") % 2 for line in rows_)
    markdown = trajcheck.table(folders, refs=["final"], columns=["cosine", "user." + trajcheck_name(NASTY)])
    assert {len(row) for row in cells(markdown)} == {3}
    assert (
        "<b>" not in markdown
        and "://" not in markdown
        and "\u202e" not in markdown
        and "](" not in markdown.replace("\\](", "")
    )


def trajcheck_name(words: str) -> str:
    from trajcheck.readable import one_line

    return one_line(words)


def test_reports_below_a_folder_and_one_run_twice(tmp_path: Path) -> None:
    for name in ("x/a", "x/b", "y/a"):
        report(tmp_path / "reports", name, 0.1)
    about = json.loads((tmp_path / "reports/y/a/summary.json").read_text())
    (tmp_path / "reports/together").mkdir()
    (tmp_path / "reports/together/summary.json").write_text(json.dumps({"run": {"id": "several-runs"}, "reports": {}}))
    assert len(cells(trajcheck.table([tmp_path / "reports", tmp_path / "reports/x/../x/a"], refs=["final"]))) == 4
    about["run"]["id"] = "x/a"
    (tmp_path / "reports/y/a/summary.json").write_text(json.dumps(about))
    with pytest.raises(UsageError, match="are reports of one run, which would count 2 times"):
        trajcheck.table([tmp_path / "reports"], group_by=["optimizer"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="empty: holds no report"):
        trajcheck.table([tmp_path / "empty"])
    (tmp_path / "reports/x/b/summary.json").write_text("{")
    with pytest.raises(BadInputError, match="cannot be read as JSON"):
        trajcheck.table([tmp_path / "reports"])


def test_a_file_is_replaced_only_if_it_is_such_a_table(cli: Cli, tmp_path: Path) -> None:
    folder = report(tmp_path, "a", 0.1)
    for form in ("latex", "markdown", "csv"):
        out = tmp_path / "new" / f"table.{form}"
        for _ in range(2):
            assert cli("table", folder, "--format", form, "--out", out) == (0, f"{out}\n", "")
        assert out.read_text() == trajcheck.table([folder], form)
        assert cli("table", folder, "--format", "markdown", "--out", out, "--quiet") == (0, "", "")
    for name in ("notes.tex", "a/steps.csv", "a/summary.json"):
        mine = tmp_path / name
        mine.parent.mkdir(exist_ok=True)
        if not mine.exists():
            mine.write_text("\\documentclass{article}\n")
        before = mine.read_bytes()
        done = cli("table", folder, "--out", mine)
        assert done.code == 5 and "is no table of trajcheck's" in done.err and mine.read_bytes() == before
    with pytest.raises(OutputError, match=r"cannot be written|is there already"):
        trajcheck.table([folder], out=tmp_path)
    assert cli("table", folder).out == trajcheck.table([folder])


def test_never_into_a_run(plain_run: Path, tmp_path: Path) -> None:
    made = trajcheck.analyze(plain_run, out=tmp_path / "report")
    with pytest.raises(OutputError, match="lies in the recorded run"):
        trajcheck.table([made.folder], out=plain_run / "table.tex")
    text = trajcheck.table([made.folder], columns=["cosine", "convexity_ratio", "path_ratio"])
    assert "no convexity\\_ratio towards final" in text and "needs the loss replayed" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "word"], "--format 'word': expected one of latex, markdown, csv"),
        (["--ref", "best"], "--ref 'best': none of these reports has it; they have final, x_(t-1)"),
        (["--sample", "probe"], "--sample 'probe'"),
        (["--columns", "cosine,wrong"], "--columns 'wrong': is no column"),
    ],
)
def test_refusals(cli: Cli, tmp_path: Path, words: list[str], said: str) -> None:
    done = cli("table", report(tmp_path, "a", 0.1), *words)
    assert done.code == 2 and said in done.err


def test_the_previous_iterate_is_mathematics_in_latex(tmp_path: Path) -> None:
    folders = [report(tmp_path, name, 0.1) for name in ("a", "b")]
    text = trajcheck.table(folders, "latex", refs=["x_(t-1)", "final"], columns=["mean:grad_norm"])
    assert text.count(" & $x_{t-1}$ & ") == 2 and "x\\_(t-1)" not in text
