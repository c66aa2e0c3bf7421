"""`python -m benchmarks COMMAND`, one of those below: a file each, with its own options."""

from __future__ import annotations

import importlib

import typer

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)

COMMANDS: tuple[str, ...] = (
    "stream",
    "start",
    "replay",
    "record",
    "scale",
    "layers",
    "trainer",
    "batch",
    "resolution",
    "choice_of_rows",
    "pure_noise",
    "archives",
    "gpu",
    "cluster",
    "curvature",
    "fits",
    "paired",
)

for name in COMMANDS:
    app.command(name)(importlib.import_module(f"benchmarks.{name}").main)


if __name__ == "__main__":
    app()
