"""The pass on other sizes: memory and time must not depend on the model or on the number of steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.runs import gpt_shapes, workspace, write_run
from benchmarks.stream import the_pass
from benchmarks.table import Row, show
from benchmarks.timing import Spread, in_turn, peak_memory

#: What run.json says at least where a Recorder wrote it.
RECORDED = {"format": 1, "versions": {"trajcheck": "1"}}


def main(
    small: Annotated[int, typer.Option(help="Numbers in the smaller model, float32.")] = 25_000_000,
    large: Annotated[int, typer.Option(help="Numbers in the larger one.")] = 124_000_000,
    short: Annotated[int, typer.Option(help="Records of the shorter runs.")] = 7,
    long: Annotated[int, typer.Option(help="Records of the longer run.")] = 100,
    rounds: Annotated[int, typer.Option(help="How often each task is timed.")] = 5,
    folder: Annotated[Path | None, typer.Option(help="Where to make the data; by default for temporary files.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table to this file as JSON.")] = None,
) -> None:
    """Peak memory and time per snapshot from a small model and few steps to a large one and many."""
    with workspace(folder) as place:
        settings = {"small": f"{small:,}", "large": f"{large:,}", "short": short, "long": long, "rounds": rounds}
        peaks = {}
        for name, parameters, steps in (("base", small, short), ("large", large, short), ("long", small // 5, long)):
            write_run(place / name, gpt_shapes(parameters), steps)
            command = ["-m", "trajcheck", "analyze", str(place / name), "--out", str(place / f"{name}-report")]
            peaks[f"{name}, not by a Recorder"], _ = peak_memory([*command, "--quiet", "--no-plots"])
            (place / name / "run.json").write_text(json.dumps(RECORDED))
            peaks[name], _ = peak_memory([*command, "--quiet", "--no-plots", "--fresh"])
        write_run(place / "few", gpt_shapes(small // 5), short)
        times = in_turn({name: the_pass(place / name) for name in ("long", "few")}, rounds)
        ratios = times.ratio("long", "few")
        each = Spread(*(value * short / long for value in (ratios.median, ratios.low, ratios.high)))
    rows = [
        Row("trajcheck analyze, K=1: peak memory", peaks["base"], "MB", target=120),
        Row(
            f"peak memory, {large // 10**6} M / {small // 10**6} M numbers", peaks["large"] / peaks["base"], target=1.1
        ),
        Row(f"peak memory, T={long} / T={short}", peaks["long"] / peaks["base"], target=1.1),
        Row(
            f"peak memory, T={long}, of files that no Recorder wrote, whose contents are audited",
            peaks["long, not by a Recorder"],
            "MB",
        ),
        Row(f"pass: time per snapshot, T={long} / T={short}", each, target=1.15),
    ]
    show("The pass on other sizes", settings, rows, out)
