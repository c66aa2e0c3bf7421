"""Every test process imports the top of all test files: what is dear there is paid by each of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from places import ROOT

#: Libraries that few tests need and whose import is long, by the first parts of their modules.
DEAR = frozenset(
    {
        *("ray", "sklearn", "wandb", "deepspeed", "datasets", "peft", "torchvision", "mlflow"),
        *("huggingface_hub", "transformers", "accelerate", "lightning", "torchmetrics", "pyarrow", "IPython"),
    }
)
#: Files that are about such a library, whose classes theirs are made of; of the helpers, tests import them lazily.
ABOUT = {"files/remote/test_hub_archives.py", "helpers/hf_trainers.py", "helpers/lightning_models.py"}


def imported_on_collection(nodes: list[ast.stmt]) -> Iterator[str]:
    """First parts of the modules that running these statements imports, also by pytest.importorskip."""
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, (ast.ClassDef, ast.Try, ast.With)):
            yield from imported_on_collection(node.body)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from imported_on_collection(node.body + node.orelse)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.Expr)) and node.value is not None:
            for call in ast.walk(node.value):
                if isinstance(call, ast.Call) and ast.unparse(call.func) in ("pytest.importorskip", "import_module"):
                    yield str(getattr(call.args[0], "value", "")).partition(".")[0]


def test_collecting_imports_nothing_dear() -> None:
    tests = ROOT / "tests"
    found = {}
    for path in tests.rglob("*.py"):
        name = path.relative_to(tests).as_posix()
        if dear := DEAR & set(imported_on_collection(ast.parse(path.read_text()).body)):
            found[name] = sorted(dear)
    assert found.keys() <= ABOUT, f"import these in the functions or fixtures that need them: {found}"
    assert found.keys() == ABOUT  # that it finds any
