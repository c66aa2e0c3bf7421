"""Where things stand in the repository."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
HELPERS = ROOT / "tests" / "helpers"
PACKAGE = ROOT / "trajcheck"
SAMPLES = ROOT / "sample_checkpoints"
