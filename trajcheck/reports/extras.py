"""What optional extras bring, and how to get one that is missing. Imports none of it."""

from __future__ import annotations

from importlib.util import find_spec

from trajcheck.errors import UsageError

#: The packages of each extra that reports use.
PACKAGES = {"plots": ("matplotlib", "plotly"), "tensorboard": ("tensorboard",), "wandb": ("wandb",)}


def missing(extra: str) -> list[str]:
    """The packages of an extra that are not installed."""
    return [name for name in PACKAGES[extra] if find_spec(name) is None]


def install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'trajcheck[{extra}]'"


def need(extra: str, what: str) -> None:
    """Raise UsageError, which says how to install it, where `what` needs an extra that is missing."""
    if lacking := missing(extra):
        raise UsageError(f"{what} {' and '.join(lacking)}: {install(extra)}")
