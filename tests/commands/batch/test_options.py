"""trajcheck/commands/batch/options.py: the TOML file of a batch."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from trajcheck.commands.batch.command import with_command_line
from trajcheck.commands.batch.config_file import read_config
from trajcheck.commands.batch.options import BatchConfig, seconds
from trajcheck.commands.batch.run_state import Fingerprint, RunState
from trajcheck.errors import UsageError
from trajcheck.measuring.options import Options

WHOLE = """
[batch]
include = ["gpt2/*", "small"]
exclude = "*/debug-*"
workers = 2
devices = ["cuda:0", "cuda:1"]
runner = "ray"
address = "auto"
gpus_per_task = 1
timeout = "1.5h"
max-runs = 7
deep = true
plots = false
interval = 1

[options]
ref = ["final", "other", "other@init", "point.safetensors", "mean:3", "nowhere"]
sample = ["own"]
layers = true
objective = "objectives.py:small"

[[runs]]
match = "gpt2/*"
objective = "/elsewhere/objectives.py:gpt2"
curvature = 100

[[runs]]
match = "*/two"
objective = "run"
"""


def read(tmp_path: Path, text: str) -> BatchConfig:
    path = tmp_path / "nightly.toml"
    path.write_text(text)
    return read_config(path)


def test_every_key(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "point.safetensors").touch()
    config = read(tmp_path, WHOLE)
    assert (config.include, config.exclude) == (("gpt2/*", "small"), ("*/debug-*",))
    assert (config.workers, config.devices, config.runner) == (2, ("cuda:0", "cuda:1"), "ray")
    assert (config.address, config.gpus_per_task, config.timeout) == ("auto", 1.0, 5400.0)
    assert (config.max_runs, config.deep, config.plots, config.interval) == (7, True, False, 1.0)
    here = str(tmp_path)
    assert config.options.refs == (
        *("final", f"{here}/other", f"{here}/other@init", f"{here}/point.safetensors", "mean:3", "nowhere"),
    )
    small, large, two = (config.options_of(name) for name in ("small", "gpt2/one", "gpt2/two"))
    assert (small.objective, small.curvature) == (f"{here}/objectives.py:small", None)
    assert (large.objective, large.curvature) == ("/elsewhere/objectives.py:gpt2", 100)
    assert (two.objective, two.curvature, two.layers) == ("run", 100, True)
    named = WHOLE.replace("-", "_")
    assert all(each.name in named for each in fields(BatchConfig) if each.name not in ("options", "overrides"))


def test_nothing_said_is_nothing_changed(tmp_path: Path) -> None:
    assert read(tmp_path, "") == BatchConfig() == with_command_line(BatchConfig(), workers=None, include=(), deep=False)
    assert BatchConfig().options_of("any") == Options()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[batch]\nworker = 2", "'worker' is unknown; the keys are include, exclude, workers"),
        ("[option]", "'option' is unknown"),
        ("[options]\nrefs = 3", "refs = 3: expected a list"),
        ("[options]\nreference = 'final'", "'reference' is unknown"),
        ("[batch]\nworkers = 'two'", "workers = 'two': expected a whole number"),
        ("[batch]\nworkers = 0", "--workers 0"),
        ("[batch]\nworkers = true", "workers = True"),
        ("[batch]\nmax_runs = -1", "--max-runs -1"),
        ("[batch]\ndeep = 1", "deep = 1: expected true or false"),
        ("[batch]\ntimeout = '6 weeks'", "timeout '6 weeks'"),
        ("[batch]\ntimeout = 0", "timeout 0"),
        ("[batch]\ninterval = -1", "interval -1"),
        ("[batch]\ninclude = [1]", "include = [1]"),
        ("[[runs]]\ncurvature = 3", "expected match"),
        ("[[runs]]\nmatch = 'a'\nmetric = 'x'", "[[runs]] 'a': 'metric' is unknown"),
        ("[runs]\nmatch = 'a'", "write [[runs]]"),
        ("batch = 3", "write [batch]"),
        ("[options]\nmetrics = ['nothing']", "nothing"),
        ("[[runs]]\nmatch = 'a'\nsteps = '1:x'", "1:x"),
        ("[batch", "not a TOML file"),
        ("a = " + "[" * 5000, "not a TOML file"),
        ("[batch]\n" + "a . " * 50_000 + "b = 1", "a key of more than 32 parts (line 2)"),
        ("a." + "'b c'." * 200_000 + "c = 1", "1,200,007 bytes, and expected are 1,000,000 at most"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(tmp_path, text)
    assert said in str(raised.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.toml", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_config(path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not a TOML file"):
        read_config(tmp_path / "bytes.toml")


def test_times() -> None:
    assert [seconds(text) for text in ("90", 90, "90s", "15m", "6h", "1.5d")] == [90, 90, 90, 900, 21600, 129600]
    for text in ("", "h", "-1s", "1w", True, None, "0"):
        with pytest.raises(UsageError):
            seconds(text)


def test_objectives_of_common_models_and_their_data(tmp_path: Path) -> None:
    """Paths are from the file's folder; what a batch remembers of such an objective are its files, and no others."""
    path = tmp_path / "batch.toml"
    lines = ['objective = "hf-causal-lm:base"', 'data = "tokens"', "probe = 3", 'log = "{run}/log.csv"']
    path.write_text("\n".join(["[options]", *lines, 'log-lr = "lr"']))
    options = read_config(path).options
    assert options.objective == f"hf-causal-lm:{tmp_path / 'base'}" and options.data == str(tmp_path / "tokens")
    assert options.log == "{run}/log.csv" and options.log_lr == ("lr",) and options.samples == ("probe",)
    path.write_text('[options]\nobjective = "hf-causal-lm"\ndata = "/x/tokens.bin"\nlog = "all.csv"\nlog-lr = "lr"\n')
    other = read_config(path).options
    assert (other.objective, other.data, other.log) == ("hf-causal-lm", "/x/tokens.bin", str(tmp_path / "all.csv"))

    def state(*files: str) -> RunState:
        return RunState("run", Fingerprint("", ""), {}, dict.fromkeys(files, "sha256:0"))

    assert state("run/config.json", "/x/tokens.bin").is_of(other)
    assert state(f"{tmp_path}/base/config.json", f"{tmp_path}/tokens/a.jsonl").is_of(options)
    assert not state("run/config.json", "/etc/passwd").is_of(other) and not state().is_of(other)
