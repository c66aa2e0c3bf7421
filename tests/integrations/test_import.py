"""trajcheck.integrations: light to import, and clear about what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_package_imports_no_framework() -> None:
    loaded = set(python("import sys, trajcheck.integrations; print(*sys.modules)").split())
    assert not loaded & {"torch", "transformers", "accelerate", "lightning"}


@pytest.mark.parametrize(
    ("module", "framework", "extra"),
    [("hf", "transformers", "hf"), ("hf", "accelerate", "hf"), ("lightning", "lightning", "lightning")],
)
def test_a_missing_framework_is_named_with_its_extra(module: str, framework: str, extra: str) -> None:
    missing = f"import sys; sys.modules[{framework!r}] = None"  # as if it were not installed
    said = python(f"{missing}\ntry: import trajcheck.integrations.{module}\nexcept ImportError as error: print(error)")
    assert said.startswith(f"trajcheck.integrations.{module} needs ")
    assert said.rstrip().endswith(f"pip install 'trajcheck[{extra}]'")
