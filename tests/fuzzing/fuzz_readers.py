"""Every reader of what somebody else wrote, as one function that is given changed bytes and an empty folder.

To add one: a function `name(data, folder)` under `@reader(seeds)`, where seeds() gives whole inputs to start from. It
may raise TrajcheckError and nothing else.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from counted import estimate
from places import SAMPLES
from rank_files import cut_run, rank_file
from safetensors.numpy import save

import trajcheck
from trajcheck.commands.batch.config_file import read_config
from trajcheck.commands.flow.integrate import State
from trajcheck.commands.flow.state_file import NAME, Reached, StateFile
from trajcheck.commands.report.one_report import can_draw, draw_report
from trajcheck.commands.verify.command import verify
from trajcheck.errors import TrajcheckError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.plain_json import parse_json
from trajcheck.files.torch_tensors import read_tensor
from trajcheck.measuring.options import Options
from trajcheck.objective.exported import load_exported
from trajcheck.objective.program.stored import checksum
from trajcheck.reports.reading.report import WORDS, read_report
from trajcheck.runs.batch_restoring import unflatten
from trajcheck.runs.formats.native import reading as native
from trajcheck.runs.references import resolve_references
from trajcheck.runs.trajectory import Trajectory, open_trajectory
from trajcheck.scalars.rows import choose_rows, parse_steps
from trajcheck.scalars.saved.encoding import KEY, DamagedError, decode, encode, name_of
from trajcheck.scalars.saved.record import Need, Record, TensorShares
from trajcheck.scalars.saved.store import ScalarStore
from trajcheck.scalars.values import FlowScalars

Read = Callable[[bytes, Path], object]
Files = dict[str, bytes]


@dataclass(frozen=True)
class Reader:
    """One reader. `share` of the cases of a long run are its own; a slow one has fewer."""

    name: str
    read: Read
    seeds: Callable[[], list[bytes]]
    share: float


READERS: dict[str, Reader] = {}


def reader(seeds: Callable[[], list[bytes]], share: float = 1.0) -> Callable[[Read], Read]:
    def register(read: Read) -> Read:
        READERS[read.__name__] = Reader(read.__name__, read, cache(seeds), share)
        return read

    return register


def step_name(step: int) -> str:
    return f"step-{step:09d}.safetensors"


def spread(folder: Path, files: Files, **more: bytes | None) -> Path:
    """The files in a folder, some changed or (None) left out; of `more`, `__` in a name stands for a dot."""
    folder.mkdir(exist_ok=True)
    changes = {name.replace("__", "."): data for name, data in more.items()}
    for name, data in {**files, **changes}.items():
        if data is not None:
            (folder / name).write_bytes(data)
    return folder


@cache
def run_files() -> Files:
    """A recorded run: run.json, and four steps on one batch, which the first holds."""
    source = SAMPLES / "breast-cancer-gd"
    return {name: (source / name).read_bytes() for name in ("run.json", *map(step_name, range(4)))}


@cache
def full_run_files() -> Files:
    """Three steps with everything that a step file may hold, as a script would write them."""
    stream = np.random.default_rng(0)
    tree = {"dict": {"x": {"tensor": "x"}, "more": {"list": [{"tensor": "more/0"}, {"value": "word"}]}}}
    files = {}
    for step in range(3):
        tensors: dict[str, np.ndarray] = {
            "param/a.weight": stream.normal(size=(3, 2)).astype(np.float16),
            "master/a.weight": stream.normal(size=(3, 2)).astype(np.float32),
            "grad/a.weight": stream.normal(size=(3, 2)).astype(np.float32),
            "window/a.weight": stream.normal(size=(3, 2)).astype(np.float32),
            "state/exp_avg/a.weight": stream.normal(size=(3, 2)).astype(np.float32),
            "buffer/mean": stream.normal(size=2),
            "rng/cpu": stream.integers(0, 255, (2, 16), dtype=np.uint8),
            **{f"batch/{i}/x": stream.normal(size=(2, 3)).astype(np.float32) for i in range(2)},
            **{f"batch/{i}/more/0": np.array([i], np.int64) for i in range(2)},
        }
        members = [json.loads(json.dumps(tree).replace('"tensor": "', f'"tensor": "{i}/')) for i in range(2)]
        if step == 0:
            tensors |= {"param/frozen": np.ones(2, np.float32)}
        metadata = {
            **{"format": 1, "step": step, "loss": 1.0 / (step + 1), "lr": [0.1], "tau": [0.1 * step], "epoch": 0},
            **{"tau_squares": [0.01 * step], "batch_tree": {"tuple": members}, "micro_batches": 2, "clip": 0.5},
            **{"micro_weights": [0.5, 0.5], "skipped": False, "frozen_from": 0, "autocast": "bfloat16"},
        }
        if step:
            sums = {"grad_dot_offset": 0.25, "loss_sum": 1.0, "grad_sq_sum": 2.0}
            metadata["window"] = {"from": step - 1, "steps": 1, **sums}
        else:
            del tensors["window/a.weight"]
        files[step_name(step)] = save(tensors, {"trajcheck": json.dumps(metadata)})
    return files


@cache
def rank_run_files() -> Files:
    """The recorded run of three ranks."""
    with tempfile.TemporaryDirectory() as name:
        source = spread(Path(name) / "source", run_files())
        cut = cut_run(source, Path(name) / "cut", 3)
        return {path.name: path.read_bytes() for path in sorted(cut.iterdir())}


def headers(run: Path) -> Trajectory:
    """All that is done with the headers of a run, strictly and leniently."""
    verify(run, threads=1)
    try:
        return open_trajectory(run)
    except TrajcheckError:
        return open_trajectory(run, skip_bad=True)


@reader(lambda: [data for name, data in run_files().items() if name.startswith("step")])
def step_file(data: bytes, folder: Path) -> None:
    headers(spread(folder / "run", {**run_files(), step_name(2): data}))


@reader(lambda: list(full_run_files().values()))
def full_step_file(data: bytes, folder: Path) -> None:
    """Every tensor of it is read as well."""
    trajectory = headers(spread(folder / "run", {**full_run_files(), step_name(1): data}))
    with ExtentReader() as extents:
        for snapshot in trajectory.snapshots:
            kinds = (snapshot.parameters, snapshot.gradients, snapshot.batch, snapshot.buffers, snapshot.generators)
            for tensors in (*kinds, snapshot.window_gradient, snapshot.frozen):
                for extent in tensors.values():
                    read_tensor(extents, extent)
            source = trajectory.batch_source(snapshot)
            if source is not None:
                unflatten(source.batch, source.batch_tree)


@reader(lambda: [data for name, data in rank_run_files().items() if "rank-00001" in name])
def rank_step_file(data: bytes, folder: Path) -> None:
    trajectory = headers(spread(folder / "run", {**rank_run_files(), rank_file(2, 1, 3): data}))
    for snapshot in trajectory.snapshots:
        for tensors in (snapshot.parameters, snapshot.gradients, snapshot.batch):
            for name in tensors:
                tensors[name].parts  # noqa: B018


@reader(lambda: [*full_run_files().values(), *list(run_files().values())[1:]], share=0.2)
def analyzed_steps(data: bytes, folder: Path) -> None:
    """A changed step or run.json, all the way to tables."""
    files = full_run_files() if b"state/exp_avg" in data[:5000] else run_files()
    run = spread(folder / "run", {**files, step_name(1): data})
    trajcheck.analyze(run, ["final", "mean:2"], skip_bad=True, layers=True, memory_lags=(1,), out=folder / "report")


@reader(lambda: [run_files()["run.json"]])
def run_json(data: bytes, folder: Path) -> None:
    headers(spread(folder / "run", {**run_files(), "run.json": data}))


@reader(lambda: [run_files()["run.json"]], share=0.1)
def analyzed_run_json(data: bytes, folder: Path) -> None:
    run = spread(folder / "run", {**run_files(), "run.json": data})
    trajcheck.analyze(run, ["init"], layers=True, out=folder / "report")


@reader(lambda: [*(name.encode() for name in run_files()), *(name.encode() for name in rank_run_files())])
def file_name(data: bytes, folder: Path) -> None:
    """A step's file under another name."""
    name = data.replace(b"/", b"").replace(b"\0", b"")[:255]
    if name in (b"", b".", b".."):
        return
    run = spread(folder / "run", run_files())
    (run / os.fsdecode(name)).write_bytes(run_files()[step_name(3)])
    headers(run)


@reader(lambda: [(SAMPLES / "digits-sgd-seed0" / "probe-000.safetensors").read_bytes()])
def probe_file(data: bytes, folder: Path) -> None:
    trajectory = headers(spread(folder / "run", {**run_files(), "probe-000.safetensors": data}))
    for probe in trajectory.probes:
        unflatten(probe.batch, probe.batch_tree)


@reader(
    lambda: [b"final", b"init", b"best", b"step:2", b"mean:3", b"run", b"run@best", b"run@mean:2", b"p.safetensors"]
)
def reference(data: bytes, folder: Path) -> None:
    run = spread(folder / "run", run_files())
    (folder / "p.safetensors").write_bytes(run_files()[step_name(1)])
    spec = os.fsdecode(data)
    before = Path.cwd()
    os.chdir(folder)
    try:
        resolve_references([spec], open_trajectory(run), folder)
    finally:
        os.chdir(before)


@reader(lambda: [run_files()[step_name(1)], save({"weight": np.zeros((1, 30)), "bias": np.zeros(1)})])
def reference_file(data: bytes, folder: Path) -> None:
    run, path = spread(folder / "run", run_files()), folder / "point.safetensors"
    path.write_bytes(data)
    resolve_references([str(path)], open_trajectory(run), folder)


@reader(lambda: [b"1:3", b"::2", b"0:4:1", b":", b"2:"])
def steps_option(data: bytes, folder: Path) -> None:
    choose_rows(open_trajectory(spread(folder / "run", run_files())), parse_steps(os.fsdecode(data)))


@reader(lambda: [b"4GB", b"500MB", b"1.5 GiB", b"100", b"2k", b"3 TB"])
def memory_option(data: bytes, folder: Path) -> None:
    size = Options(memory=os.fsdecode(data)).memory_bytes
    assert size is not None and size > 0


@reader(lambda: [b"weight", b"^(.*)[.]", b"(w|b)", b"(?P<layer>bias)", b"[a-z]+"])
def group_option(data: bytes, folder: Path) -> None:
    estimate(spread(folder / "run", run_files()), Options(group=(os.fsdecode(data),)))


@reader(
    lambda: [json.dumps({"tuple": [{"tensor": "0"}, {"dict": {"a": {"tensor": "1"}, "b": {"value": 1}}}]}).encode()]
)
def batch_tree(data: bytes, folder: Path) -> None:
    """As it stands in a step file, by its parser of JSON."""
    metadata = {"format": 1, "step": 1, "lr": [0.1]}
    text = json.dumps(metadata)[:-1] + ', "batch_tree": ' + data.decode("utf-8", "replace") + "}"
    path = folder / step_name(1)
    tensors = {"param/a": np.zeros(2), "batch/0": np.zeros(2), "batch/1": np.ones(1)}
    path.write_bytes(save(tensors, {"trajcheck": text}))
    snapshot = native.read_snapshot(path)
    unflatten(snapshot.batch, snapshot.batch_tree)


@reader(lambda: [b"0\n1/a\n1/b", b"", b"0/0\n0/1\n1", b"x\ny/z"])
def batch_paths(data: bytes, folder: Path) -> None:
    paths = data.decode("utf-8", "replace").split("\n")
    unflatten(dict.fromkeys(paths, 0))


def programs() -> list[bytes]:
    return [(SAMPLES / name / "objective.json").read_bytes() for name in ("breast-cancer-gd", "digits-sgd-seed0")]


@reader(programs, share=0.5)
def exported_objective(data: bytes, folder: Path) -> None:
    """As it is, and with the checksum of what it says, so that more than the checksum is asked."""
    path = folder / "objective.json"
    path.write_bytes(data)
    try:
        load_exported(path)
    except TrajcheckError:
        try:
            facts = parse_json(data.decode("utf-8", "replace"))
        except ValueError:
            return
        if isinstance(facts, dict):
            path.write_text(json.dumps({**facts, "checksum": checksum(facts)}))
            load_exported(path)


@cache
def flow_state_files() -> list[bytes]:
    """The state of a flow over three parameters, two rows far."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        states = [State(time=0.5, theta=np.arange(3.0), step=0.25, evaluations=7) for _ in range(2)]
        rows = [FlowScalars(init_dist=0.5, flow_loss=1.5), FlowScalars(flow_dist=1.0)]
        StateFile(folder, "key").save(Reached(rows, 2, states), now=True)
        return [(folder / NAME).read_bytes()]


@reader(flow_state_files)
def flow_state(data: bytes, folder: Path) -> None:
    (folder / NAME).write_bytes(data)
    StateFile(folder, "key").load(3)


def scalar_files() -> list[bytes]:
    """Records of rows and of tensors, as an analysis saves them."""
    values = {"gg": 0.5, "loss": None}
    shares = TensorShares(tuple(values), {name: tuple(values.values()) for name in "ab"})
    records = [Record(values, "word", shares if i % 2 else None) for i in range(5)]
    return [encode({bytes([i]) * KEY: record for i, record in enumerate(records[:n])}) for n in (1, 5)]


@reader(scalar_files)
def saved_scalars(data: bytes, folder: Path) -> None:
    """Damaged ones are made anew."""
    with suppress(DamagedError):
        decode(data)
    (folder / "scalars").mkdir()
    (folder / "scalars" / name_of(data)).write_bytes(data)
    ScalarStore(folder / "scalars").get(Need(bytes(KEY), ("gg",), False))


BATCH_FILE = b"""[batch]
exclude = ["*/debug-*"]
workers = 2
timeout = "6h"

[options]
ref = ["final", "init"]
memory = "4GB"

[[runs]]
match = "gpt2/*"
steps = "1:9"
curvature = 100
objective = "objectives.py:gpt2"
"""


@reader(lambda: [BATCH_FILE])
def batch_file(data: bytes, folder: Path) -> None:
    (folder / "batch.toml").write_bytes(data)
    config = read_config(folder / "batch.toml")
    config.check()
    config.options_of("gpt2/x")


@cache
def report_files() -> Files:
    """A report of two references and layers."""
    with tempfile.TemporaryDirectory() as name:
        run = spread(Path(name) / "run", full_run_files())
        trajcheck.analyze(run, ["final", "init"], layers=True, out=Path(name) / "report")
        return {path.name: path.read_bytes() for path in sorted((Path(name) / "report").iterdir()) if path.is_file()}


def report_file(data: bytes) -> str:
    """Which file of a report this seems to be."""
    if data[:1] == b"{":
        return "summary.json"
    head = data.partition(b"\n")[0].split(b",")
    words = {b"tensor": "layers.csv", b"reason": "undefined.csv", b"ref": "references.csv"}
    return next((name for word, name in words.items() if word in head), "steps.csv")


def read_tables(report: Path) -> None:
    saved = read_report(report)
    for table, frame in saved.tables.items():
        if table != "assumptions":  # whose rows are of no step
            for column in set(map(str, frame)) - set(WORDS):
                saved.series(table, column)
    for words in (saved.id, saved.references, saved.samples, saved.others, saved.why_empty("loss")):
        str(words)


@reader(lambda: [report_files()["summary.json"]])
def report_summary(data: bytes, folder: Path) -> None:
    read_tables(spread(folder / "report", {**report_files(), "summary.json": data}))


@reader(lambda: [data for name, data in report_files().items() if name.endswith(".csv")])
def report_table(data: bytes, folder: Path) -> None:
    read_tables(spread(folder / "report", {**report_files(), report_file(data): data}))


def drawn_files() -> list[bytes]:
    """Drawn once, for what matplotlib makes in its own folders when it is first used."""
    with tempfile.TemporaryDirectory() as name:
        draw_report(spread(Path(name) / "report", report_files()), ("svg",))
    return list(report_files().values())


if can_draw():

    @reader(drawn_files, share=0.004)
    def drawn_report(data: bytes, folder: Path) -> None:
        draw_report(spread(folder / "report", {**report_files(), report_file(data): data}), ("svg",))
