"""trajcheck/cli/net.py and printing.py: a line and a code for whatever comes out; a stdout gone, full or closed."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from trajcheck.cli import main
from trajcheck.cli.net import exit_code_of
from trajcheck.cli.printing import ReaderGone, complain, is_terminal, say, say_data
from trajcheck.errors import OutputError, RunError


def raising(error: BaseException) -> Any:
    def command(*words: Any, **options: Any) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyError("labels\x1b[2J\n"), 1, r"a bug: KeyError: 'labels\x1b[2J\n' (net.py, line"),
        (RecursionError("maximum recursion depth"), 1, "a bug: RecursionError"),
        (AssertionError(), 1, "Please report it, with what the same call prints with --debug."),
        (MemoryError(), 4, "memory ran out (MemoryError"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), 4, "memory ran out (ImportError"),
        (RuntimeError("can't start new thread"), 4, "memory ran out (RuntimeError"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 4, "memory ran out"),
        (OSError(errno.EMFILE, "Too many open files", "x\n"), 4, "Too many open files"),
        (OSError(errno.ENOSPC, "No space left on device"), 5, "No space left"),
        (OSError(errno.EACCES, "Permission denied", "x"), 1, "a bug: PermissionError"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "a bug: BrokenPipeError"),  # of another pipe than stdout
        (RunError("no such\nrun"), 3, r"error: no such\nrun"),
        (typer.BadParameter("bad\x9b2J"), 2, r"bad\x9b2J"),
        (typer.Exit(7), 7, ""),
        (KeyboardInterrupt(), 130, ""),
        (ReaderGone(), 141, ""),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, BaseException) else "",
)
def test_what_comes_out_is_a_line_and_a_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(raising(error)) == code
    told = capsys.readouterr()
    assert said in told.err and told.err.count("\n") == bool(said) and not told.out
    assert exit_code_of(raising(error), debug=True) == code
    assert ("Traceback" in capsys.readouterr().err) == bool(said)


def test_debug_is_taken_anywhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--debug", "verify", "nothing"], ["verify", "nothing", "--debug"]):
        monkeypatch.setattr(sys, "argv", ["trajcheck", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        error = capsys.readouterr().err
        assert ended.value.code == 3 and "Traceback" in error and error.endswith("that holds runs.\n")


class Refusing(io.StringIO):
    """A stdout that takes nothing."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("stdout", "error"),
    [
        (Refusing(errno.ENOSPC), OutputError), (Refusing(errno.EIO), OutputError), (None, OutputError),
        (Refusing(errno.EPIPE), ReaderGone),
    ],
)  # fmt: skip
def test_a_stdout_that_takes_nothing(stdout: Any, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", stdout)
    for print_it in (say, say_data):
        with pytest.raises(error):
            print_it("a")


@pytest.mark.parametrize("stderr", [Refusing(errno.ENOSPC), Refusing(errno.EPIPE), None])
def test_what_stderr_does_not_take_is_lost(
    stderr: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    complain("a")
    assert exit_code_of(raising(KeyError("x"))) == 1
    assert capsys.readouterr().out == ""


def test_a_terminal_without_the_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(taken, encoding="ascii"))
    say("⟨ü⟩")
    say_data('{"a": "\ud800"}\x1b')
    assert taken.getvalue() == b'\\u27e8\\xfc\\u27e9\n{"a": "\\ud800"}\x1b\n'
    assert not is_terminal(None)
    closed = io.StringIO()
    closed.close()
    assert not is_terminal(closed)


def test_data_on_a_terminal_does_not_act_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    shown.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdout", shown)
    say_data("a\x1b[2J,b\n" + "x" * 9000)
    assert shown.getvalue() == "a\\x1b[2J,b\n" + "x" * 9000 + "\n"


def test_as_a_shell_sees_it(tmp_path: Path) -> None:
    """Each in a process of its own, all at once."""
    (tmp_path / "typer.py").write_text("print('RAN')")
    (tmp_path / "typing.py").write_text("print('RAN')")
    (tmp_path / "json.py").write_text("print('RAN')")
    call = f"{sys.executable} -m trajcheck --version"
    lines = {
        f"{call} >&-": 5, f"{call.replace('version', 'help')} > /dev/full": 5,
        f"set -o pipefail; {{ sleep 0.2; {call.replace('version', 'help')}; }} | true": 141,
        f"TQDM_MININTERVAL=x MPLBACKEND=x {call}": 0,
    }  # fmt: skip
    started = {
        line: subprocess.Popen(["bash", "-c", line], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for line in lines
    }
    for line, process in started.items():
        out, error = (stream.decode() for stream in process.communicate())
        assert process.returncode == lines[line] and "RAN" not in out, (line, out, error)
        assert error.count("\n") <= 1 and "Traceback" not in error and "Exception ignored" not in error


@pytest.mark.parametrize("place", ["hold_standard_descriptors", "_command", "exit_code_of"])
def test_an_interrupt_is_no_traceback_at_any_time(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Before a command began, while its options are read, and when it has ended."""
    monkeypatch.setattr(f"trajcheck.cli.{place}", raising(KeyboardInterrupt()))
    monkeypatch.setattr(sys, "argv", ["trajcheck", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
