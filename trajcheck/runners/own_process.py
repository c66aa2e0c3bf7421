"""What a process of trajcheck's own, a call of the command line or a worker, takes from where it was started: of the
settings of libraries that it uses nothing that lies in the working folder, and none that could only break it."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.util import find_spec

#: Of the progress bar, whose settings are given; of figures, which are drawn in trajcheck's style into files alone.
_PREFIX, _NAMES = "TQDM_", ("MATPLOTLIBRC", "MPLBACKEND")
#: A folder that is Python's own.
_ELSEWHERE = os.path.dirname(os.path.abspath(os.__file__))


def settle() -> None:
    """To be called first, while there is one thread. It imports nothing, but for matplotlib where the
    working folder has settings of it: it would read them, whatever they are, at its first import."""
    for name in [name for name in os.environ if name.startswith(_PREFIX) or name in _NAMES]:
        del os.environ[name]
    if os.path.lexists("matplotlibrc") and find_spec("matplotlib") is not None:
        here = os.open(".", os.O_RDONLY)
        os.chdir(_ELSEWHERE)
        try:
            with suppress(ImportError):
                import matplotlib  # noqa: F401
        finally:
            os.fchdir(here)
            os.close(here)
