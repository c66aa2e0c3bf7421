"""docs/batch.md: its file means what it is said to, and lines that no test can run have options that there are."""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from documents import DOCS, code_words, fenced
from places import ROOT
from plain_run_files import Outcome

from trajcheck.commands.batch.config_file import read_config
from trajcheck.commands.batch.options import BatchConfig

PAGE = DOCS / "batch.md"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "sample_checkpoints").symlink_to(ROOT / "sample_checkpoints")
    path = tmp_path / "nightly.toml"
    path.write_text(fenced(PAGE, "toml")[0].text)
    return path


def check_arguments(command: str) -> None:
    """Parse what follows `trajcheck batch` as the command would, without doing anything."""
    from trajcheck.cli import app

    words = shlex.split(command)
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    group.commands["batch"].make_context("batch", words[words.index("batch") + 1 :])


def test_the_file_says_what_it_is_said_to_say(config: Path) -> None:
    read = read_config(config)
    assert (read.workers, read.timeout, read.exclude) == (2, 6 * 3600.0, ("*/debug-*",))
    objective = f"{config.parent / 'sample_checkpoints/objectives.py'}:digits"
    assert read.options_of("digits-sgd-seed0").objective == objective
    assert read.options_of("transformer-adamw").objective is BatchConfig().options.objective
    assert read.options.refs == ("final", "init")


def test_every_column_of_the_index_is_explained(
    config: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    assert cli("batch", "sample_checkpoints", "--include", "breast*", "--ref", "final").code == 0
    with open("reports/index.csv", newline="") as file:
        columns = next(csv.reader(file))
    assert {
        re.sub(r"_q[234]", "_q1", re.sub("^.*?((_rows)?_se|_error)$", r"<quantity>\1", name)) for name in columns
    } <= {*code_words(PAGE.read_text())}
    assert Path("reports/index.html").is_file()


def test_lines_that_other_programs_run_have_the_options_that_there_are() -> None:
    lines: list[str] = []
    for block in (*fenced(PAGE, "text"), *fenced(PAGE, "sh"), *fenced(PAGE, "bash")):
        text = block.text.replace("\\\n", " ")
        wrapped = re.search(r"--wrap '(.*?)'", text)
        lines += [wrapped[1]] if wrapped else re.findall(r"trajcheck batch .*", text)
    assert len(lines) == 3
    for line in lines:
        check_arguments(line)
    if os.name == "posix":
        subprocess.run(["bash", "-n"], input=fenced(PAGE, "bash")[0].text, text=True, check=True)


def test_the_cron_job_is_one() -> None:
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(fenced(PAGE, "yaml")[0].text)
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][:2] == ["trajcheck", "batch"]
    check_arguments(shlex.join(container["command"]))
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
