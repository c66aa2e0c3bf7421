"""trainer_state.json of Hugging Face's Trainer: the step of a checkpoint, and the log up to it.

An entry of the log at step s is written after s updates, so when x_s is there. Its `learning_rate` is

    the rate of the update that made x_s, from x_(s-1)     since transformers 4.52
    the rate of the next update, from x_s                  up to transformers 4.50

Which of them holds is told by the version that wrote config.json, and by the rates of the next update that the
scheduler saved; between the two versions by these alone. Its `loss` is the mean over the updates since the entry
before, of f(x_i; z_i) with i from that entry's step to s - 1, so with an entry at every step it is f(x_(s-1); z_(s-1)).
A mean of 0 is what the Trainer writes for a single loss that is NaN or infinite.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from trajcheck.errors import StepFileError
from trajcheck.files.plain_json import parse_json
from trajcheck.files.trees.tree import Tree
from trajcheck.runs.logs.run_log import AT_STEP, MEAN

STATE = "trainer_state.json"
#: Bytes of a state that are read first.
HEAD = 65536
#: Versions of transformers: from the first on, and before the second.
USED_SINCE, NEXT_BEFORE = (4, 52), (4, 51)


class Entry(NamedTuple):
    """One entry of the log about the training itself."""

    step: int
    loss: float | None
    rate: float | None


@dataclass(frozen=True)
class TrainerState:
    """`step` updates were made, of `planned` ones."""

    name: str
    step: int
    planned: int | None
    epoch: float | None
    entries: tuple[Entry, ...]


def read_trainer_state(tree: Tree, name: str) -> TrainerState:
    """Raises StepFileError."""
    whole = tree.json(name)
    try:
        step = _natural(whole["global_step"])
        history = whole.get("log_history") or []
        if not isinstance(history, list):
            raise ValueError("log_history is no list")
        entries = tuple(entry for each in history if (entry := _entry(each)) is not None)
        planned, epoch = _number(whole.get("max_steps")), _number(whole.get("epoch"))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise StepFileError(f"{tree.shown(name)}: not a state of the Trainer ({error!r:.200}).") from error
    return TrainerState(name, step, int(planned) if planned and planned > 0 else None, epoch, entries)


def read_step(tree: Tree, name: str) -> tuple[int, float | None]:
    """The step of a state and its epoch alone. They stand before the log, which may be long, and is then not read.
    Raises StepFileError."""
    member = tree.member(name)
    if member.size > HEAD:
        before, found, _ = tree.range(member, 0, HEAD).partition(b'"log_history"')
        with suppress(ValueError, TypeError, KeyError):
            whole = parse_json(before.decode("utf-8") + '"log_history": []}') if found else {}
            return _natural(whole["global_step"]), _number(whole.get("epoch"))
    state = read_trainer_state(tree, name)
    return state.step, state.epoch


def _entry(value: Any) -> Entry | None:
    if not isinstance(value, dict) or not {"loss", "learning_rate"} & value.keys():
        return None
    rate = _number(value.get("learning_rate"))
    return Entry(_natural(value["step"]), _number(value.get("loss")), rate if rate is None or rate >= 0 else None)


def _natural(value: Any) -> int:
    """The number of a step. Raises ValueError."""
    if type(value) is not int or not 0 <= value <= 2**53:
        raise ValueError(f"{value!r:.40} is no step")
    return value


def _number(value: Any) -> float | None:
    """A finite number; None for what is none, as NaN and text."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e300 or value != value:
        return None
    return float(value)


# -- which update a logged rate is of ---------------------------------------------------------------------------------


def rates_of_updates(
    entries: Sequence[Entry], following: Mapping[int, float], versions: Iterable[str]
) -> tuple[dict[int, float], str]:
    """{t: the rate of the update from x_t}, and why there are none, where it is not known which update is meant.

    `following` are the rates of the update from x_s, by s, as schedulers saved them; `versions` those of transformers
    that wrote the checkpoints.
    """
    logged = {entry.step: entry.rate for entry in entries if entry.rate is not None}
    if not logged:
        return {}, ""
    made = is_of_update_before(logged, following, versions)
    if made is None:
        return {}, (
            "the log's rates were left out: whether they are those of the update before an entry (transformers 4.52 "
            "on) or after it (up to 4.50) cannot be told, without a config.json that names the version"
        )
    return {step - made: rate for step, rate in logged.items() if step >= made}, ""


def is_of_update_before(
    logged: Mapping[int, float], following: Mapping[int, float], versions: Iterable[str]
) -> bool | None:
    """Whether the rates of a log, by the steps of its entries, are of the update before the entry, and not of the next
    one; None where that cannot be told. Arguments as of `rates_of_updates`."""
    if any(_differ(logged[step], rate) for step, rate in following.items() if step in logged):
        return True
    known = [tuple(map(int, match.groups())) for each in versions if (match := re.match(r"(\d{1,3})\.(\d{1,3})", each))]
    if known and min(known) >= USED_SINCE:
        return True
    if known and max(known) < NEXT_BEFORE:
        return False
    if len(set(logged.values())) == 1:
        return True
    tell = (s for s in following if s in logged and s + 1 in logged and _differ(logged[s], logged[s + 1]))
    return False if any(True for _ in tell) else None


def _differ(one: float, other: float) -> bool:
    return abs(one - other) > 1e-9 * max(abs(one), abs(other))


# -- what a logged loss is --------------------------------------------------------------------------------------------


def losses_of_steps(entries: Sequence[Entry]) -> tuple[dict[int, float], str, str]:
    """The losses of a log, what they are (AT_STEP, MEAN), and what there is to say of them.

    Where some entries speak of one update alone, f(x_(s-1); z_(s-1)), those are given, by s - 1; means otherwise.
    """
    logged = [entry for entry in entries if entry.loss is not None]
    before = [0, *(entry.step for entry in logged)]
    alone = [entry for entry, last in zip(logged, before, strict=False) if entry.step - last == 1]
    zero = [entry.step for entry in alone if entry.loss == 0]
    single = {entry.step - 1: entry.loss for entry in alone if entry.loss}
    means = {entry.step: entry.loss for entry in logged if entry.loss is not None}
    told = ""
    if zero:
        told = (
            f"{len(zero)} logged losses are exactly 0, the first of them at step {zero[0]}, which the Trainer writes "
            "for a loss that is NaN or infinite: left out"
        )
    if single:
        return single, AT_STEP, told
    return means, MEAN, told


def contradictions(states: Sequence[TrainerState]) -> str:
    """What checkpoints say of one step in different ways, as those of two trainings do; '' where they agree."""
    for one, other in pairwise(states):
        steps, known = {entry.step for entry in other.entries}, set(other.entries)
        for entry in one.entries:
            if entry.step in steps and entry not in known:
                return (
                    f"{one.name} and {other.name} say different things of step {entry.step}: the checkpoints are not "
                    "all of one training"
                )
    return ""
