"""Recorder.state_dict(): a resumed job knows tau at a step that was not recorded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import network, read, recorded_steps, sgd, train

from trajcheck.errors import RecorderError
from trajcheck.recording.recorder import Recorder


def recorder_of(folder: Path, model: Any, **options: Any) -> Recorder:
    return Recorder(folder, model, sgd(model), **{"every": 5, "strict": True, "quiet": True, **options})


def checkpoint(recorder: Recorder) -> dict[str, Any]:
    """As torch stores and loads it."""
    file = io.BytesIO()
    torch.save(recorder.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("loaded", [True, False])
def test_tau_goes_on_at_a_step_that_was_not_recorded(loaded: bool, tmp_path: Path) -> None:
    model = network()
    killed = recorder_of(tmp_path, model)
    train(model, killed._optimizer, 7, killed)
    state = checkpoint(killed)
    assert state == {"step": 7, "tau": [0.875], "tau_squares": [7 / 64]}
    train(model, killed._optimizer, 2, killed)  # beyond the checkpoint
    killed.close()
    (tmp_path / "step-000000009.safetensors").unlink()  # a killed job does not close
    with recorder_of(tmp_path, model, start_step=7) as recorder:
        if loaded:
            recorder.load_state_dict(state)
            assert recorder.state_dict() == state
        train(model, recorder._optimizer, range(7, 12), recorder)
        assert recorder.state_dict()["tau"] == ([1.5] if loaded else None)
    assert recorded_steps(tmp_path) == [0, 5, 10, 12]
    assert read(tmp_path, 10)[1].get("tau") == ([1.25] if loaded else None)
    assert read(tmp_path, 12)[1].get("tau_squares") == ([12 / 64] if loaded else None)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = network()
    with recorder_of(tmp_path, model) as recorder:
        train(model, recorder._optimizer, 6, recorder)
        state = recorder.state_dict()
        with pytest.raises(RecorderError, match="state is of step 6, and the recorder is at step 6"):
            recorder.load_state_dict(state)
    with recorder_of(tmp_path, model, start_step=8) as recorder:
        with pytest.raises(RecorderError, match=r"of step 6, and the recorder is at step 8.*start_step=6"):
            recorder.load_state_dict(state)
        with pytest.raises(RecorderError, match="1 parameter groups"):
            recorder.load_state_dict({"step": 8, "tau": [1.0, 2.0], "tau_squares": [1.0, 2.0]})


def test_a_recorder_that_stopped_has_no_state_to_go_on_from(tmp_path: Path) -> None:
    model = network()
    recorder = recorder_of(tmp_path, model)
    train(model, recorder._optimizer, 3, recorder)
    recorder.close()
    assert recorder.state_dict() == {"step": None}
    with recorder_of(tmp_path, model, start_step=3) as again:
        again.load_state_dict({"step": None})
        train(model, again._optimizer, range(3, 6), again)
    assert read(tmp_path, 5)[1]["tau"] == [0.625]  # of the last iterate, which was recorded
