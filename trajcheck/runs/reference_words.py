"""The words of references: paths as short as they can be written, and roles, as in `other=runs/x`.

A role is what tables call a reference that lies elsewhere for every run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from trajcheck.errors import UsageError

#: What a role may be called: as no reference can be.
ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")
TAKEN = ("final", "init", "best", "step", "mean")


def role_wrong(said: str) -> str | None:
    """What is wrong with ROLE=SPEC; None where nothing is."""
    role, equals, spec = said.partition("=")
    if not equals or not spec:
        return "expected ROLE=SPEC, as in other=runs/seed1"
    if not ROLE.fullmatch(role):
        return "a role is a word of letters, digits, -, _ and ., that begins with a letter"
    return f"{role} is a reference already; call the role otherwise" if role in TAKEN else None


def roles_of(said: Sequence[str], refs: Sequence[str] = ()) -> dict[str, str]:
    """{role: spec}, in the order given. Raises UsageError for a role that was given twice, or is one of `refs`."""
    found: dict[str, str] = {}
    for each in said:
        role, _, spec = each.partition("=")
        if found.get(role, spec) != spec:
            raise UsageError(f"--ref-as {role}: was given twice, as {found[role]} and as {spec}.")
        if role in refs:
            raise UsageError(f"--ref-as {role}: is a --ref too; call the role otherwise.")
        found[role] = spec
    return found


def as_words(roles: Mapping[str, str] | Sequence[str]) -> tuple[str, ...]:
    """Roles as options hold them, ROLE=SPEC each."""
    if isinstance(roles, Mapping):
        return tuple(f"{role}={spec}" for role, spec in roles.items())
    return tuple(roles)


def normalised(spec: str) -> str:
    """A reference with the path in it, if there is one, as short as it can be written: runs/a for ./runs/../runs/a."""
    path = spec.rpartition("@")[0] if "@" in spec and not _exists(spec) else spec
    short = os.path.normpath(path) if path else path
    if short == path or not _exists(path) or os.path.realpath(short) != os.path.realpath(path):
        return spec  # no path; or a link in it, so that .. leads elsewhere
    return short + spec[len(path) :]


def _exists(path: str) -> bool:
    try:
        return os.path.exists(path)
    except (OSError, ValueError):  # no path at all: too long, or with NUL
        return False
