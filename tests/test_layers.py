"""The house: imports run downward, light things stay light, and only the command line exits."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "trajcheck"
HEAVY = {"torch", "pandas", "scipy", "matplotlib", "plotly"}
SAMPLES = PACKAGE.parent / "sample_checkpoints"

#: What a room must not know, by the beginning of its modules' names.
FORBIDDEN = {
    "metrics": ("torch", "pandas", "trajcheck.tables", "trajcheck.reports", "trajcheck.gather", "trajcheck.replay"),
    "reports": ("torch", "trajcheck.gather", "trajcheck.replay", "trajcheck.objective", "trajcheck.trajectory"),
    "tables": ("torch", "pandas", "trajcheck.gather", "trajcheck.replay", "trajcheck.reports"),
    "formats": ("trajcheck.trajectory", "trajcheck.gather", "trajcheck.metrics", "trajcheck.reports"),
    "gather.py": ("torch", "pandas", "trajcheck.metrics", "trajcheck.tables", "trajcheck.reports", "trajcheck.replay"),
    "integrate.py": ("torch", "pandas", "trajcheck.trajectory", "trajcheck.objective", "trajcheck.metrics"),
    "flow_sample.py": ("pandas", "trajcheck.metrics", "trajcheck.tables", "trajcheck.reports", "trajcheck.integrate"),
    "flow_state.py": ("pandas", "trajcheck.tables", "trajcheck.reports", "trajcheck.objective", "trajcheck.replay"),
    "permutation_spec.py": ("pandas", "trajcheck.gather", "trajcheck.metrics", "trajcheck.tables", "trajcheck.reports"),
    "permutations.py": ("torch", "pandas", "trajcheck.gather", "trajcheck.metrics", "trajcheck.tables"),
    "symmetry.py": ("pandas", "trajcheck.metrics", "trajcheck.tables", "trajcheck.reports", "trajcheck.references"),
    "replay.py": ("pandas", "trajcheck.metrics", "trajcheck.tables", "trajcheck.reports"),
    "alignment.py": (
        "torch",
        "pandas",
        "trajcheck.metrics",
        "trajcheck.tables",
        "trajcheck.reports",
        "trajcheck.replay",
    ),
    "gather_pairs.py": ("torch", "pandas", "trajcheck.metrics", "trajcheck.tables", "trajcheck.reports"),
    "gather_gram.py": ("torch", "pandas", "trajcheck.metrics", "trajcheck.tables", "trajcheck.reports"),
    "straight_line.py": ("pandas", "trajcheck.metrics", "trajcheck.tables", "trajcheck.reports"),
}


def modules(tree: ast.AST, everywhere: bool = True) -> set[str]:
    """The modules that a file imports; with `everywhere` false, only those that importing it imports."""
    found: set[str] = set()
    for node in ast.walk(tree) if everywhere else top_level(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return found


def top_level(tree: ast.AST) -> list[ast.stmt]:
    assert isinstance(tree, ast.Module)
    return tree.body


def parsed() -> list[tuple[str, ast.AST]]:
    return [(str(path.relative_to(PACKAGE)), ast.parse(path.read_text())) for path in sorted(PACKAGE.rglob("*.py"))]


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_run_downward(room: str) -> None:
    seen = 0
    for name, tree in parsed():
        if name == room or name.startswith(f"{room}/"):
            seen += 1
            for module in modules(tree, everywhere="torch" in FORBIDDEN[room]):
                known = [each for each in FORBIDDEN[room] if module == each or module.startswith(f"{each}.")]
                # reports/frames.py makes frames, and annotations may name anything
                assert not known, f"{name} imports {module}"
    assert seen


def test_nothing_but_the_command_line_imports_it_or_exits() -> None:
    for name, tree in parsed():
        if name.startswith("cli/") or name in ("__main__.py", "runners/worker.py"):  # a worker ends its own process
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


def test_the_stored_vector_road_needs_no_torch(tmp_path: Path) -> None:
    run = SAMPLES / "digits-sgd-seed0"
    code = f"import trajcheck; trajcheck.analyze({str(run)!r}, ['final', 'mean:3'], out={str(tmp_path / 'report')!r})"
    assert "torch" not in loaded_after(code)
    other = SAMPLES / "digits-sgd-seed1"
    code = f"import trajcheck; trajcheck.compare({str(run)!r}, {str(other)!r}, out={str(tmp_path / 'compared')!r})"
    assert "torch" not in loaded_after(code)


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
