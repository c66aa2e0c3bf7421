"""trajcheck.scalars.saved and trajcheck.measuring.portions: what is saved with a report is not computed again, whatever
happened to the analysis that computed it, and the report comes out the same."""

from __future__ import annotations

import os
import random
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_run_files import write_plain_step

from trajcheck import analyze
from trajcheck.commands.analyze.command import run_analysis
from trajcheck.errors import RunError
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options
from trajcheck.measuring.portions import Measurement
from trajcheck.reports.making.results import Report
from trajcheck.scalars.saved.encoding import DamagedError, decode, encode, name_of
from trajcheck.scalars.saved.record import Need, Record, TensorShares
from trajcheck.scalars.saved.store import ScalarStore

TABLES = ("steps.csv", "references.csv", "undefined.csv")


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.csv"))}


def options(objective: Path, **more: Any) -> Options:
    return Options(refs=("final", "init", "mean:3"), objective=f"{objective}:good", **more)


def saved(report: Report) -> dict[str, int]:
    return report.summary["scalars"]


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


RECORDS = {
    key(1): Record({"a": 1.5, "b": None}, "because"),
    key(2): Record({"a": -0.0, "b": 5e-324}),
    key(3): Record({"loss": 1 / 3}, "", TensorShares(("loss",), {"w/x": (None,), "y": (0.1,)})),
}


def test_records_come_back_bit_by_bit() -> None:
    found = decode(encode(RECORDS))
    assert found == RECORDS
    assert str(found[key(2)].values["a"]) == "-0.0"
    assert encode(dict(reversed(RECORDS.items()))) == encode(RECORDS)


def test_damaged_bytes_are_known(tmp_path: Path) -> None:
    data = encode(RECORDS)
    stream = random.Random(0)
    for _ in range(300):
        place, cut = stream.randrange(len(data)), stream.randrange(len(data))
        flipped = data[:place] + bytes([data[place] ^ (1 << stream.randrange(8))]) + data[place + 1 :]
        for damaged in (flipped, data[:cut], data + b"x", stream.randbytes(cut)):
            assert name_of(damaged) != name_of(data)
            with suppress(DamagedError):
                decode(damaged)
            (tmp_path / name_of(data)).write_bytes(damaged)
            assert ScalarStore(tmp_path).get(Need(key(1), ("a",))) is None


def test_a_store_gives_what_is_needed_and_no_less(tmp_path: Path) -> None:
    store = ScalarStore(tmp_path, interval=0)
    store.add({key(1): Record({"a": 1.0})})
    store.add({key(1): Record({"b": 2.0})})
    store.add({key(2): Record({"a": 1.0}, shares=TensorShares(("a",), {"w": (1.0,)}))})
    for each in (store, ScalarStore(tmp_path)):
        assert each.get(Need(key(1), ("a", "b"))) == Record({"a": 1.0, "b": 2.0})
        assert each.get(Need(key(1), ("a", "c"))) is None
        assert each.get(Need(key(1), ("a",), by_tensor=True)) is None
        assert each.get(Need(key(2), ("a",), by_tensor=True)) is not None
    assert ScalarStore(tmp_path, fresh=True).get(Need(key(1), ("a",))) is None


def test_records_with_shares_and_without_make_one(tmp_path: Path) -> None:
    """More fields without shares, then fewer with them: neither may hide the other."""
    wide, split = Record({"a": 1.0, "b": 2.0}), Record({"a": 1.0}, shares=TensorShares(("a",), {"w": (1.0,)}))
    for one, other in ((wide, split), (split, wide)):
        store = ScalarStore(tmp_path / str(one is wide), interval=0)
        store.add({key(1): one})
        store.add({key(1): other})
        for each in (store, ScalarStore(tmp_path / str(one is wide))):
            assert each.get(Need(key(1), ("a", "b"))) and each.get(Need(key(1), ("a",), by_tensor=True))
            assert each.get(Need(key(1), ("b",), by_tensor=True)) is None
        store.add({key(1): Record({"b": 2.0}, shares=TensorShares(("b",), {"w": (2.0,)}))})
        assert ScalarStore(tmp_path / str(one is wide)).get(Need(key(1), ("a", "b"), by_tensor=True))


def test_tidying_leaves_one_file_and_no_more_unused_records_than_used_ones(tmp_path: Path) -> None:
    store = ScalarStore(tmp_path, interval=0)
    for number in range(5):
        store.add({key(number): Record({"a": float(number)})})
    assert len(list(tmp_path.iterdir())) == 5
    (tmp_path / name_of(b"")).write_bytes(b"damaged")
    store = ScalarStore(tmp_path)
    for number in range(3):
        store.use(Need(key(number), ("a",)))
    store.tidy()
    assert len(list(tmp_path.iterdir())) == 1
    assert all(ScalarStore(tmp_path).get(Need(key(number), ("a",))) for number in range(5))
    store = ScalarStore(tmp_path)
    store.use(Need(key(4), ("a",)))
    store.tidy()
    store = ScalarStore(tmp_path)
    assert [number for number in range(5) if store.get(Need(key(number), ("a",)))] == [4]


def test_the_second_analysis_computes_nothing(plain_run: Path, objective_file: Path, tmp_path: Path) -> None:
    chosen = options(objective_file, curvature=3, layers=True, memory_lags=(1, 2), path_integral=2)
    first = run_analysis(plain_run, chosen, tmp_path / "out")
    before = tables(tmp_path / "out")
    second = run_analysis(plain_run, chosen, tmp_path / "out")
    assert tables(tmp_path / "out") == before
    assert saved(first) == {"computed": 11, "reused": 0}
    assert saved(second) == {"computed": 0, "reused": 11}
    assert first.summary["replay"]["evaluations"] > 0 == second.summary["replay"]["evaluations"]
    assert first.summary["replay"]["randomness"] == second.summary["replay"]["randomness"]
    again = run_analysis(plain_run, chosen, tmp_path / "out", fresh=True)
    assert saved(again) == {"computed": 11, "reused": 0}
    assert tables(tmp_path / "out") == before


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("after", range(0, 60, 7))
def test_an_interrupted_analysis_goes_on(
    plain_run: Path, objective_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    chosen = options(objective_file, curvature=3, memory_lags=(1, 2))
    run_analysis(plain_run, chosen, tmp_path / "whole")
    add, calls = ScalarStore.add, []

    def interrupted(store: ScalarStore, records: Any) -> None:
        calls.append(records)
        if len(calls) == after:
            raise Interrupted
        add(store, records)

    with monkeypatch.context() as patch:
        patch.setattr(ScalarStore, "add", interrupted)
        try:
            run_analysis(plain_run, chosen, tmp_path / "out", interval=0)
        except Interrupted:
            assert not list((tmp_path / "out").glob("*.csv"))
    files = len(list((tmp_path / "out" / "scalars").glob("*[0-9a-f].safetensors")))
    assert files > 0
    run_analysis(plain_run, chosen, tmp_path / "out")
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")


def test_a_grown_run_is_measured_towards_its_new_end_alone(
    plain_run: Path, objective_file: Path, tmp_path: Path
) -> None:
    chosen = options(objective_file, curvature=2)
    later = [plain_run / f"step-{step:09d}.safetensors" for step in (8, 9, 10)]
    aside = tmp_path / "aside"
    aside.mkdir()
    for path in later:
        shutil.move(path, aside / path.name)
    run_analysis(plain_run, chosen, tmp_path / "out")
    for path in later:
        shutil.move(aside / path.name, path)
    asked: list[tuple[str, bool, tuple[int, ...], tuple[int, ...]]] = []
    compute = Measurement.compute

    def watched(self: Measurement, portion: Any, *more: Any) -> None:
        asked.append((portion.kind, portion.own, portion.references, portion.places))
        compute(self, portion, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Measurement, "compute", watched)
        grown = run_analysis(plain_run, chosen, tmp_path / "out")
    whole = run_analysis(plain_run, chosen, tmp_path / "whole")
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")
    old, new = (0, 1, 2, 3, 4, 5, 6), (7, 8, 9, 10)
    assert ("stored", False, (0, 2), old) in asked
    assert ("stored", True, (0, 1, 2), new) in asked
    assert ("replayed", False, (0, 2), old) in asked
    assert grown.summary["replay"]["evaluations"] < whole.summary["replay"]["evaluations"]


def touch(path: Path) -> None:
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))


@pytest.mark.parametrize("step, rows", [(0, 11), (5, 3), (10, 11)])
def test_what_depends_on_a_changed_file_is_computed_anew(
    plain_run: Path, objective_file: Path, tmp_path: Path, step: int, rows: int
) -> None:
    """A step is looked at by its neighbours; the first by all (x_0), and the last is the reference."""
    chosen = Options(objective=f"{objective_file}:good")
    run_analysis(plain_run, chosen, tmp_path / "out")
    touch(plain_run / f"step-{step:09d}.safetensors")
    assert saved(run_analysis(plain_run, chosen, tmp_path / "out")) == {"computed": rows, "reused": 11 - rows}


def test_deep_prints_see_what_the_time_does_not_tell(plain_run: Path, tmp_path: Path) -> None:
    run_analysis(plain_run, Options(), tmp_path / "out", deep=True)
    path = plain_run / "step-000000005.safetensors"
    touch(path)
    assert saved(run_analysis(plain_run, Options(), tmp_path / "out", deep=True))["computed"] == 0
    found, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert saved(run_analysis(plain_run, Options(), tmp_path / "out", deep=True))["computed"] == 3


def test_another_objective_or_setting_is_another_number(plain_run: Path, objective_file: Path, tmp_path: Path) -> None:
    helper = objective_file.with_name("helper_of_the_objective.py")
    helper.write_text("SCALE = 1.0\n")
    text = objective_file.read_text()
    objective_file.write_text(
        text + "\ndef scaled():\n    from helper_of_the_objective import SCALE\n"
        "    return Linear(), lambda model, batch: SCALE * squared(model, batch)\n"
    )

    def losses(out: str, name: str = "scaled", **more: Any) -> tuple[int, Any]:
        report = analyze(plain_run, objective=f"{objective_file}:{name}", out=tmp_path / out, **more)
        return saved(report)["computed"], report.steps["loss"].iloc[3]

    assert losses("out")[0] == 11
    assert losses("out") == (0, losses("other")[1])
    assert losses("out", "good")[0] == 10  # all but the last iterate, which has no batch
    assert losses("out", replay_dtype="float64")[0] == 0  # what costs little is in float64 already
    assert losses("out", replay_dtype="float32")[0] == 10
    assert losses("out", metrics=("secant",))[0] == 0  # less than what is there
    helper.write_text("SCALE = 3.0  # of another length\n")
    sys.modules.pop("helper_of_the_objective", None)
    computed, tripled = losses("out")
    assert (computed, tripled) == (10, losses("third")[1])
    sys.modules.pop("helper_of_the_objective", None)


def test_more_metrics_and_references_add_what_is_missing(plain_run: Path, objective_file: Path, tmp_path: Path) -> None:
    spec = f"{objective_file}:good"
    analyze(plain_run, objective=spec, metrics=("secant",), out=tmp_path / "out")
    analyze(plain_run, objective=spec, out=tmp_path / "out")
    analyze(plain_run, ("final", "step:4"), objective=spec, sample=("own", "previous"), out=tmp_path / "out")
    analyze(plain_run, ("final", "step:4"), objective=spec, sample=("own", "previous"), out=tmp_path / "whole")
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")


def test_without_an_objective_recorded_gradients_are_not_those_of_a_replay(
    plain_run: Path, objective_file: Path, tmp_path: Path
) -> None:
    """The pass does not read gradients that are replayed; what it left out must not count as saved."""
    analyze(plain_run, objective=f"{objective_file}:good", out=tmp_path / "out")
    analyze(plain_run, out=tmp_path / "out")
    analyze(plain_run, out=tmp_path / "whole")
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")


def test_an_average_is_made_once(plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trajcheck.files import kept_vectors

    run_analysis(plain_run, Options(("mean:3",)), tmp_path / "out")
    [kept] = (tmp_path / "out" / "scalars").glob("mean-*")
    with monkeypatch.context() as patch:
        patch.setattr(kept_vectors, "_hashed", None)  # nothing is written
        run_analysis(plain_run, Options(("mean:3",)), tmp_path / "out")
    touch(plain_run / "step-000000009.safetensors")
    run_analysis(plain_run, Options(("mean:3",)), tmp_path / "out")
    [other] = (tmp_path / "out" / "scalars").glob("mean-*")
    assert other != kept
    run_analysis(plain_run, Options(), tmp_path / "out")
    assert not list((tmp_path / "out" / "scalars").glob("mean-*"))


def test_fresh_and_deep_make_averages_anew(plain_run: Path, tmp_path: Path) -> None:
    path = plain_run / "step-000000008.safetensors"

    def change() -> None:
        """Of the same size and time."""
        found, data = path.stat(), bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))

    for how in ({"fresh": True}, {"deep": True}):
        out = tmp_path / str(how)
        run_analysis(plain_run, Options(("mean:3",)), out, **how)
        change()
        run_analysis(plain_run, Options(("mean:3",)), out, **how)
        run_analysis(plain_run, Options(("mean:3",)), out / "whole")
        assert tables(out) == tables(out / "whole")


def test_what_fresh_was_given_to_discard_does_not_come_back(plain_run: Path, tmp_path: Path) -> None:
    run_analysis(plain_run, Options(), tmp_path / "out")
    folder = tmp_path / "out" / "scalars"
    before = set(folder.iterdir())
    store = ScalarStore(folder, fresh=True, interval=0)
    assert set(folder.iterdir()) == before
    store.add({key(1): Record({"a": 1.0})})
    assert len(set(folder.iterdir())) == 1 and not before & set(folder.iterdir())


def test_layers_after_an_analysis_without_them(plain_run: Path, objective_file: Path, tmp_path: Path) -> None:
    spec = f"{objective_file}:good"
    analyze(plain_run, out=tmp_path / "out")
    analyze(plain_run, objective=spec, layers=True, out=tmp_path / "out")
    analyze(plain_run, objective=spec, layers=True, out=tmp_path / "whole")
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")
    analyze(plain_run, metrics=("secant",), layers=True, pca=4, out=tmp_path / "out")
    assert "trajectory.csv" in tables(tmp_path / "out")
    analyze(plain_run, out=tmp_path / "out")
    always = {"steps.csv", "references.csv", "assumptions.csv", "schedule.csv", "undefined.csv"}
    assert tables(tmp_path / "out").keys() == always


@pytest.mark.parametrize("metrics", ["progress", "convexity", "smoothness"])
def test_an_objective_that_leaves_the_pass_nothing_to_read(
    plain_run: Path, objective_file: Path, tmp_path: Path, metrics: str
) -> None:
    chosen = {"objective": f"{objective_file}:good", "metrics": (metrics,)}
    report = analyze(plain_run, ("init", "step:3"), **chosen, out=tmp_path / "out")  # type: ignore[arg-type]
    assert saved(report)["computed"] == 11


def test_helpers_that_change_places_are_another_objective(
    plain_run: Path, objective_file: Path, tmp_path: Path
) -> None:
    helpers = [tmp_path / "one_helper.py", tmp_path / "two_helper.py"]
    for each, text in zip(helpers, ("S = 1.0\n", "S = 2.0\n"), strict=True):
        each.write_text(text)
    objective_file.write_text("import one_helper, two_helper\n" + objective_file.read_text())
    computed = []
    for _ in range(3):
        computed.append(saved(analyze(plain_run, objective=f"{objective_file}:good", out=tmp_path / "out"))["computed"])
        if len(computed) == 2:
            texts = [each.read_text() for each in helpers]
            for each, text in zip(helpers, reversed(texts), strict=True):
                each.write_text(text)
    assert computed == [11, 0, 10]


def test_an_analysis_that_fails_leaves_no_report(plain_run: Path, objective_file: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError):
        run_analysis(plain_run, Options(sample=("probe",), objective=f"{objective_file}:good"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_chunk_after_the_other_gives_the_same(plain_run: Path, objective_file: Path, tmp_path: Path) -> None:
    chosen = options(objective_file, curvature=2, memory_lags=(1,), sample=("own", "previous"))
    run_analysis(plain_run, chosen, tmp_path / "whole")
    folder = tmp_path / "out" / "scalars"
    folder.mkdir(parents=True)
    for places in ({4, 5, 6}, {10}, {0, 1, 2, 3, 7, 8, 9}):
        analysis, store = MeasuredRun(plain_run, chosen, quiet=True), ScalarStore(folder)
        measurement = analysis.measurement(analysis.resolve(folder).points, store)
        analysis.compute(measurement, measurement.portions_of(analysis.rows.some(places)))
        store.flush()
    report = run_analysis(plain_run, chosen, tmp_path / "out")
    assert saved(report)["computed"] == 0
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")


def test_shares_of_no_tensor_are_computed_anew(plain_run: Path, tmp_path: Path) -> None:
    """Saved by somebody else, under the right keys."""
    out = tmp_path / "out"
    analyze(plain_run, layers=True, out=out)
    before = tables(out)
    [path] = (out / "scalars").iterdir()
    forged = {
        key: Record(record.values, record.word, record.shares and TensorShares(record.shares.fields, {}))
        for key, record in decode(path.read_bytes()).items()
    }
    path.unlink()
    data = encode(forged)
    (out / "scalars" / name_of(data)).write_bytes(data)
    analyze(plain_run, layers=True, out=out)
    assert tables(out) == before


@pytest.mark.parametrize("layers", [False, True])
def test_a_run_without_a_number_is_refused(tmp_path: Path, layers: bool) -> None:
    empty = np.zeros((0, 3), np.float32)
    (tmp_path / "run").mkdir()
    for step in range(3):
        write_plain_step(tmp_path / "run", step, {"param/w": empty, "grad/w": empty}, loss=1.0, lr=0.1)
    with pytest.raises(RunError, match=r"holds no number: its parameters \(w\) have 0 elements"):
        analyze(tmp_path / "run", layers=layers, out=tmp_path / "out")
