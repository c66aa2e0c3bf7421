"""Each kind of fault that public archives have, planted: it is found, named with the step it belongs to, and nothing
else is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from small_trainings import (
    CLEAN,
    Training,
    training,
    write_distributed,
    write_files,
    write_native,
    write_torch,
    write_trainer,
)

from trajcheck.audit.audit import audit
from trajcheck.audit.findings import DAMAGE, NOTE, Finding
from trajcheck.runs.trajectory import open_trajectory

KINDS = ("noisy to the end", "adam", "signs", "averaged weights", "momentum, cosine")
SHARD = ("0.weight", "0.bias")


@cache
def clean(name: str = "adam") -> Training:
    return CLEAN[name]()[0]


@cache
def other() -> Training:
    return training(seed=77, lr=3e-3, kind="adam", momentum=0.9)[0]


def found(tmp_path: Path, weights: Training, write: Callable[..., Path] = write_files) -> list[Finding]:
    """All but notes."""
    return [each for each in audit(open_trajectory(write(tmp_path / "run", weights))).findings if each.severity != NOTE]


def steps(findings: list[Finding]) -> set[int]:
    return {step for each in findings for step in each.steps}


def between(weights: Training, place: int, share: float = 0.4) -> dict[str, np.ndarray]:
    """Weights that lie between two steps and are those of none, as of a step that the archive does not hold."""
    first, second = list(weights)[place : place + 2]
    return {name: (1 - share) * x + share * weights[second][name] for name, x in weights[first].items()}


@pytest.mark.parametrize(
    "write",
    [write_native, write_files, write_torch, write_trainer, write_distributed],
    ids=lambda write: write.__name__,
)
def test_every_kind_in_one_archive(tmp_path: Path, write: Callable[..., Path]) -> None:
    """Final weights under early steps, one shard of another step, a copied step, one of another seed, two exchanged."""
    whole, st = clean(), list(clean())
    bad = dict(whole) | {st[i]: whole[st[-1]] for i in (0, 1, 2)}
    bad[st[6]] = whole[st[6]] | {name: whole[st[20]][name] for name in SHARD}
    bad[st[10]] = whole[st[17]]
    bad[st[13]] = other()[st[13]]
    bad[st[21]], bad[st[24]] = whole[st[24]], whole[st[21]]
    findings = found(tmp_path, bad, write)
    by_step = {step: each for each in findings for step in each.steps}
    assert sorted(by_step) == [st[i] for i in (0, 1, 2, 6, 10, 13, 21, 24)]
    assert {each.severity for each in findings} == {DAMAGE}
    belongs = {step: each.belongs_to for step, each in by_step.items()}
    assert belongs == {st[i]: st[-1] for i in (0, 1, 2)} | {
        st[6]: st[20], st[10]: st[17], st[13]: None, st[21]: st[24], st[24]: st[21]
    }  # fmt: skip
    assert set(by_step[st[6]].tensors) == set(SHARD) and not by_step[st[10]].tensors
    assert by_step[st[13]].finding == "not of this run"


@pytest.mark.parametrize("name", KINDS)
def test_final_weights_under_more_than_half_of_the_steps(tmp_path: Path, name: str) -> None:
    """Of the same bytes, and of as many late steps as there are early ones."""
    whole, st = clean(name), list(clean(name))
    count = 5 * len(st) // 9
    exact = dict(whole) | {step: whole[st[-1]] for step in st[:count]}
    (finding,) = found(tmp_path / "exact", exact)
    assert (finding.steps, finding.belongs_to, finding.severity) == (tuple(st[:count]), st[-1], DAMAGE)


@pytest.mark.parametrize("name", KINDS)
def test_late_weights_that_the_archive_holds_nowhere(tmp_path: Path, name: str) -> None:
    whole, st = clean(name), list(clean(name))
    early = range(4, 8)
    bad = dict(whole) | {st[i]: between(whole, len(st) - 3 - i % 2, 0.1 * i) for i in early}
    findings = found(tmp_path, bad)
    assert steps(findings) == {st[i] for i in early}
    assert all(each.severity == DAMAGE and each.belongs_to in st[-5:] for each in findings)


@pytest.mark.parametrize("name", KINDS)
def test_one_step_elsewhere(tmp_path: Path, name: str) -> None:
    whole, st = clean(name), list(clean(name))
    (finding,) = found(tmp_path, dict(whole) | {st[7]: between(whole, 20)})
    assert finding.steps == (st[7],) and finding.belongs_to in (st[20], st[21]) and not finding.tensors


@pytest.mark.parametrize("name", ["noisy to the end", "adam", "signs"])
def test_one_shard_of_a_step_that_the_archive_holds_nowhere(tmp_path: Path, name: str) -> None:
    whole, st = clean(name), list(clean(name))
    there = between(whole, 20)
    (finding,) = found(tmp_path, dict(whole) | {st[7]: whole[st[7]] | {each: there[each] for each in SHARD}})
    assert finding.steps == (st[7],) and set(finding.tensors) == set(SHARD) and finding.belongs_to in (st[20], st[21])


@pytest.mark.parametrize("apart", [1, 2, 3, 8])
@pytest.mark.parametrize("name", ["noisy to the end", "adam", "averaged weights"])
def test_two_steps_exchanged(tmp_path: Path, name: str, apart: int) -> None:
    whole, st = clean(name), list(clean(name))
    a, b = st[12], st[12 + apart]
    findings = found(tmp_path, dict(whole) | {a: whole[b], b: whole[a]})
    assert steps(findings) == {a, b} and {each.severity for each in findings} == {DAMAGE}
    assert {each.steps: each.belongs_to for each in findings} == {(a,): b, (b,): a} or apart == 8


def test_a_stale_shard(tmp_path: Path) -> None:
    """The shard of the step before, which never stands still otherwise."""
    whole, st = clean(), list(clean())
    (finding,) = found(tmp_path, dict(whole) | {st[9]: whole[st[9]] | {n: whole[st[8]][n] for n in ("2.weight",)}})
    assert finding.steps == (st[9],) and finding.tensors == ("2.weight",) and finding.belongs_to == st[8]


def test_a_step_stored_twice(tmp_path: Path) -> None:
    """In place of the next: the gap beside it is that of two. With a rate that is known it is damage."""
    whole, st = clean("noisy to the end"), list(clean("noisy to the end"))
    bad = dict(whole) | {st[9]: whole[st[8]]}
    (finding,) = found(tmp_path / "unknown", bad)
    assert finding.steps == (st[8], st[9]) and finding.severity == "suspicious"
    run = write_native(tmp_path / "known", bad, dict.fromkeys(st, 0.4))
    (known,) = [each for each in audit(open_trajectory(run)).findings if each.severity != NOTE]
    assert known.steps == (st[8], st[9]) and known.severity == DAMAGE


@pytest.mark.parametrize("which", [slice(0, 1), slice(-1, None), slice(20, None), slice(12, 15), slice(9, 10)])
def test_steps_of_another_seed(tmp_path: Path, which: slice) -> None:
    """The first, the last, all from one on, some in a row, a single one."""
    whole, st = clean(), list(clean())
    findings = found(tmp_path, dict(whole) | {step: other()[step] for step in st[which]})
    assert steps(findings) == set(st[which]) and {each.severity for each in findings} == {DAMAGE}
    assert {each.finding for each in findings} <= {"not of this run", "does not descend from step 0"}
