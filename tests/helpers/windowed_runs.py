"""A Recorder of windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from trajcheck.recording.recorder import Recorder


def windowed(folder: Path, model: nn.Module, optimizer: Any, **options: Any) -> Recorder:
    options = {
        "strict": True,
        "quiet": True,
        "windows": True,
        **({} if "schedule" in options else {"every": 4}),
        **options,
    }
    return Recorder(folder, model, optimizer, **options)
