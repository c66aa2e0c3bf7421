"""trainer_state.json of Hugging Face's Trainer, as a log: an entry every `logging_steps` updates."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trajcheck.commands.schedule.logged import Logged, NoOrderError
from trajcheck.errors import BadInputError
from trajcheck.files.opening import read_json
from trajcheck.readable import one_line
from trajcheck.runs.formats.archives.hf.trainer_state import STATE as STATE
from trajcheck.runs.formats.archives.hf.trainer_state import is_of_update_before

_KEYS = ("loss", "learning_rate", "grad_norm")


def read_trainer_log(path: Path) -> tuple[Logged, list[str]]:
    """The entries about the training itself, in their order, and what there is to say of them. An entry after s updates
    tells of update s - 1, the last of them. Raises BadInputError, naming file, entry and key."""
    try:
        state = read_json(path)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise BadInputError(f"{path}: cannot be read as JSON ({error!s:.200}).") from error
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise BadInputError(f"{path}: has no list log_history, as the Trainer's {STATE} has.")
    found = [
        (place, _step(path, place, each), {name: _number(path, place, each, name) for name in _KEYS})
        for place, each in enumerate(history)
        if _of_training(path, place, each)
    ]
    by_entry = {step: rate for _, step, values in found if (rate := values["learning_rate"]) is not None}
    told = is_of_update_before(by_entry, {}, _versions(path))
    logged = Logged()
    for place, step, values in found:
        loss = values["loss"] if values["loss"] != 0 else float("nan")  # which the Trainer writes for one that is none
        rate, norm = values["learning_rate"], values["grad_norm"]
        where = f"entry {place} of log_history"
        logged.add(where, max(step - 1, 0), (loss, None if told is False else rate, norm))
        if told is False and rate is not None:
            logged.add(where, step, (None, rate, None))
    try:
        logged.check_order()
    except NoOrderError as error:
        raise BadInputError(f"{path}: {error}.") from error
    notes = [
        "the Trainer logs grad_norm before it clips (max_grad_norm, 1 unless told otherwise): where that is more, the "
        "step was made with a shorter gradient than the one counted here"
    ]
    if told is None:
        notes.append(
            "rates are taken for those of the last update before their entry, as transformers logs them since 4.52: "
            "no config.json beside the log names the version"
        )
    return logged, notes


def _of_training(path: Path, place: int, entry: Any) -> bool:
    if not isinstance(entry, dict):
        raise BadInputError(f"{path}: entry {place} of log_history is no object.")
    return any(name in entry for name in _KEYS)


def _step(path: Path, place: int, entry: Mapping[str, Any]) -> int:
    step = entry.get("step")
    if type(step) is not int or not 0 < step <= 2**53:
        raise BadInputError(
            f"{path}: entry {place} of log_history has the step {one_line(step, 40)}; expected how many updates were "
            "made, 1 or more."
        )
    return step


def _number(path: Path, place: int, entry: Mapping[str, Any], name: str) -> float | None:
    """NaN and infinities stay what they are: they are not known."""
    value = entry.get(name)
    if value is None:
        return None
    number = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):
            number = float(value)
    if number is None or (number < 0 and name != "loss"):
        wanted = "a number" if name == "loss" else "a number, 0 or more"
        raise BadInputError(
            f"{path}: entry {place} of log_history: {name} is {one_line(value, 40)}; expected {wanted}."
        )
    return number


def _versions(path: Path) -> list[str]:
    """That of transformers, as the model's configuration beside the log has it."""
    with suppress(OSError, ValueError):
        said = read_json(path.with_name("config.json"), 10_000_000)
        if isinstance(said, dict) and isinstance(said.get("transformers_version"), str):
            return [said["transformers_version"]]
    return []
