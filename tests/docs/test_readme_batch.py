"""README.md on `trajcheck batch`: its file, its commands and its output are true."""

from __future__ import annotations

import csv
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from places import ROOT

from trajcheck.commands.batch.options import BatchConfig, read_config

SECTION = (ROOT / "README.md").read_text().partition("\n## Nightly over an archive\n")[2].partition("\n## ")[0]


def fenced(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)
    return str(found)


def arguments(command: str) -> list[str]:
    """What follows `trajcheck batch` in a shell's line."""
    words = shlex.split(command)
    return words[words.index("batch") + 1 :]


@pytest.fixture
def beside_the_samples(tmp_path: Path) -> Path:
    (tmp_path / "sample_checkpoints").symlink_to(ROOT / "sample_checkpoints")
    (tmp_path / "nightly.toml").write_text(fenced("toml"))
    return tmp_path


def on_a_terminal(command: str, folder: Path) -> str:
    """What a command prints to its standard output, where that is a terminal."""
    ours, theirs = pty.openpty()
    try:
        words = [sys.executable, "-m", "trajcheck", *shlex.split(command)[1:]]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            words, cwd=folder, env={**os.environ, "PYTHONPATH": path}, stdout=theirs, stderr=subprocess.PIPE, text=True
        )
        assert done.returncode == 0, done.stderr
        return os.read(ours, 1 << 16).decode().replace("\r\n", "\n")
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_session_and_the_tables_columns(beside_the_samples: Path) -> None:
    sessions = fenced("shell-session").removeprefix("$ ").split("\n$ ")
    assert len(sessions) == 2
    for session in sessions:
        command, _, shown = session.strip().partition("\n")
        assert on_a_terminal(command, beside_the_samples).strip() == shown
    with open(beside_the_samples / "reports" / "index.csv", newline="") as file:
        columns = [name.rpartition(": ")[2] for name in next(csv.reader(file))]
    assert set(columns) <= set(re.findall(r"`(?:<ref>: )?([a-z_]+)`", SECTION))
    assert (beside_the_samples / "reports" / "index.html").is_file()


def test_the_file_says_what_it_is_said_to_say(beside_the_samples: Path) -> None:
    config = read_config(beside_the_samples / "nightly.toml")
    assert (config.workers, config.timeout, config.exclude) == (2, 6 * 3600.0, ("*/debug-*",))
    assert config.options_of("digits-sgd-seed0").objective == str(
        beside_the_samples / "sample_checkpoints/objectives.py:digits"
    )
    assert config.options_of("transformer-adamw").objective is BatchConfig().options.objective
    assert config.options.refs == ("final", "init")


def test_the_commands_have_the_options_that_there_are(tmp_path: Path) -> None:
    script = fenced("bash")
    (wrapped,) = re.findall(r"--wrap '(.*?)'", SECTION)
    crontab = re.search(r"trajcheck batch .*", fenced("text"))
    assert crontab
    lines = [crontab[0], wrapped.replace(" ... ", " archive "), script.replace("\\\n", " ").splitlines()[-1]]
    for line in lines:
        check_arguments(arguments(line))
    if os.name == "posix":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_cron_job_is_one(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(fenced("yaml"))
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][:2] == ["trajcheck", "batch"]
    check_arguments(container["command"][2:])
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def check_arguments(words: list[str]) -> None:
    """Parse the words as `trajcheck batch` would, without doing anything."""
    from trajcheck.cli import app

    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    group.commands["batch"].make_context("batch", list(words))
