"""What an audit finds: which steps, what, on which evidence, and how bad that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

#: How bad a finding is. Damage: the step is not what its number says, or not readable; no number should be made of it.
#: Suspicious: may well be wrong, and may have an ordinary reason. Note: ordinary, and good to know.
DAMAGE, SUSPICIOUS, NOTE = SEVERITIES = ("damage", "suspicious", "note")


@dataclass(frozen=True)
class Finding:
    """One row: `steps` are those that it is about (none: the archive), `tensors` those concerned where not all are, and
    `belongs_to` the step next to which these weights belong, in the run `of` where it is another one."""

    steps: tuple[int, ...]
    finding: str
    evidence: str
    severity: str
    tensors: tuple[str, ...] = ()
    belongs_to: int | None = None
    of: str | None = None


@dataclass(frozen=True)
class Audit:
    """All findings, the worst first. `sampled` is how many elements of how many tensors of how many steps were looked
    at, `bytes` how many bytes were read for it; `not_judged` says in words what could not be decided, and why."""

    findings: tuple[Finding, ...] = ()
    steps: int = 0
    tensors: int = 0
    sampled: int = 0
    bytes: int = 0
    not_judged: tuple[str, ...] = field(default=())

    @property
    def damage(self) -> tuple[Finding, ...]:
        return self.of(DAMAGE)

    def of(self, severity: str) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.severity == severity)

    @property
    def bad_steps(self) -> dict[int, str]:
        """Each step that damage was found in, with the first reason."""
        found: dict[int, str] = {}
        for each in self.damage:
            for step in each.steps:
                found.setdefault(step, in_words(each))
        return dict(sorted(found.items()))

    def as_json(self) -> dict[str, Any]:
        """With stable keys, as docs/verify.md names them."""
        return {
            "findings": [as_json(each) for each in self.findings],
            "steps": self.steps,
            "tensors": self.tensors,
            "sampled": self.sampled,
            "bytes": self.bytes,
            "not_judged": list(self.not_judged),
        }


def as_json(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "steps": list(finding.steps), "tensors": list(finding.tensors)}


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst first, by step among equals."""
    return tuple(sorted(findings, key=lambda each: (SEVERITIES.index(each.severity), each.steps[:1], each.finding)))


def in_words(finding: Finding) -> str:
    """A finding as one sentence without its severity."""
    return (
        f"{steps_text(finding.steps)}: {finding.finding}: {finding.evidence}"
        if finding.steps
        else (f"{finding.finding}: {finding.evidence}")
    )


def steps_text(steps: Sequence[int]) -> str:
    """`step 40`, or `steps 0 to 85000 (86)` where there are more."""
    if not steps:
        return ""
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]} ({len(steps)})"
