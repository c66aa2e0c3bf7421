"""Modes of a model's modules, training or evaluation, in words.

{module: "train" | "eval"} of the modules whose mode differs from that of the module around them; what is around the
model itself counts as "train", and "" is the model.
"""

from __future__ import annotations

from collections.abc import Mapping

Modes = Mapping[str, str]

WORDS = {"train": "training", "eval": "evaluation"}

#: So many modules are named.
NAMED = 4


def modes_in_words(modes: Modes) -> str:
    """`training`, `evaluation`, or `training, with backbone.bn in evaluation`."""
    parts = []
    for mode, word in WORDS.items():
        names = [name for name, own in modes.items() if name and own == mode]
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            parts.append(f"{', '.join(names[:NAMED])}{more} in {word}")
    return WORDS[modes.get("", "train")] + (f", with {', '.join(parts)}" if parts else "")


def other_modes(exported: Modes, recorded: Modes) -> str:
    """That a program of some modes cannot stand for a step of others."""
    return (
        f"the exported program is that of a model in {modes_in_words(exported)}, and this step was made in "
        f"{modes_in_words(recorded)}; an objective file (--objective FILE.py:NAME) evaluates in any mode"
    )
