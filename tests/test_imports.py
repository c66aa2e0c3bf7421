"""Light things stay light, nothing unpickles, and only the command line exits."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from places import PACKAGE, SAMPLES

from tests.test_layers import modules, parsed

HEAVY = {"torch", "pandas", "scipy", "matplotlib", "plotly"}
#: What an analysis of vectors that trajcheck stored has no use for, with all that is below: formats of strangers,
#: packed files, programs, workers, what draws, and what other packages bring along.
UNUSED = (
    *("torch", "scipy", "matplotlib", "plotly", "pydantic", "pydantic_core", "importlib.metadata", "email.message"),
    *("multiprocessing", "tqdm", "trajcheck.runs.formats.archives", "trajcheck.runs.formats.not_read"),
    *("trajcheck.files.pickles.torch_file", "trajcheck.files.trees", "trajcheck.files.remote.hub"),
    *("trajcheck.objective.program", "trajcheck.objective.evaluation", "trajcheck.replay.replay"),
    *("trajcheck.runners.processes", "trajcheck.runners.ray_cluster", "trajcheck.runners.worker"),
    *("trajcheck.reports.figures", "trajcheck.reports.page", "trajcheck.commands.analyze.time_estimate"),
)


def test_nothing_but_the_command_line_imports_it_or_exits() -> None:
    for name, tree in parsed():
        if name.startswith("cli") or name in ("__main__", "runners.worker"):  # a worker ends its own process
            continue
        assert not any(module.startswith("trajcheck.cli") for module in modules(tree)), name
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        exits = [f for f in calls if isinstance(f, ast.Attribute) and f.attr in ("exit", "_exit")]
        assert not [f for f in exits if isinstance(f.value, ast.Name) and f.value.id in ("sys", "os")], name


def test_nothing_unpickles() -> None:
    for name, tree in parsed():
        assert not modules(tree) & {"pickle", "dill", "cloudpickle", "torch.serialization"}, name
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), name


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_is_light() -> None:
    assert not loaded_after("import trajcheck") & HEAVY


def test_a_call_imports_its_command_alone(tmp_path: Path) -> None:
    """And nothing of what its run has no use for."""
    run, other, out = (
        str(each) for each in (SAMPLES / "digits-sgd-seed0", SAMPLES / "digits-sgd-seed1", tmp_path / "r")
    )
    words = ["trajcheck", "analyze", run, "--ref", "final", "--ref", other, "--ref", "mean:3", "--out", out, "--quiet"]
    words += ["--no-plots", "--objective", "none"]
    lines = [
        "from trajcheck.cli import main",
        f"sys.argv = {words}",
        "try: main()",
        "except SystemExit as end: assert not end.code",
    ]
    loaded = loaded_after("\n".join(lines))
    commands = {path.stem for path in (PACKAGE / "cli").glob("*.py") if f"def {path.stem}_command(" in path.read_text()}
    assert {name for name in commands if f"trajcheck.cli.{name}" in loaded} == {"analyze"}
    assert not [name for name in loaded for unused in UNUSED if name == unused or name.startswith(f"{unused}.")]


def test_help_is_light() -> None:
    code = "\n".join(
        [
            "from trajcheck.cli import main",
            "commands = ([name, '--help'] for name in ('analyze', 'compare', 'flow', 'report'))",
            "for arguments in (['--help'], *commands, ['--version']):",
            "    sys.argv = ['trajcheck', *arguments]",
            "    try: main()",
            "    except SystemExit: pass",
        ]
    )
    assert not loaded_after(code) & HEAVY


def test_a_comparison_of_stored_vectors_needs_no_torch(tmp_path: Path) -> None:
    run, other, out = SAMPLES / "digits-sgd-seed0", SAMPLES / "digits-sgd-seed1", tmp_path / "compared"
    code = f"import trajcheck; trajcheck.compare({str(run)!r}, {str(other)!r}, objective='none', out={str(out)!r})"
    assert "torch" not in loaded_after(code)


def test_a_replay_imports_no_compiler(tmp_path: Path) -> None:
    run, out = str(SAMPLES / "digits-sgd-seed0"), str(tmp_path / "report")
    code = f"import trajcheck; trajcheck.analyze({run!r}, ['final'], objective='run', steps='0:2', out={out!r})"
    loaded = loaded_after(code)
    assert "torch" in loaded and not loaded & {"torch._dynamo", "torch._inductor", "sympy", "scipy", "matplotlib"}


def test_public_names() -> None:
    import trajcheck

    assert sorted(trajcheck.__all__) == trajcheck.__all__
    for name in trajcheck.__all__:
        assert getattr(trajcheck, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing"):
        trajcheck.nothing  # noqa: B018


def test_python_m_trajcheck() -> None:
    done = subprocess.run([sys.executable, "-m", "trajcheck", "--version"], capture_output=True, text=True, check=True)
    version, _, loop = done.stdout.partition(" (inner loop: ")
    assert version == f"trajcheck {__import__('trajcheck').__version__}"
    assert loop.startswith(("compiled", "numpy"))
