"""`python -m benchmarks.faults recorder|batch|hostile`: a command a kind of fault, each prints a table of trials."""

from __future__ import annotations

import importlib

import typer

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
app.callback()(lambda: None)

COMMANDS: tuple[str, ...] = ("recorder", "batch", "hostile")

for name in COMMANDS:
    app.command(name)(importlib.import_module(f"benchmarks.faults.{name}").main)


if __name__ == "__main__":
    app()
