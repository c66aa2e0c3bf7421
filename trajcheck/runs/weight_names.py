"""Which tensors of a file of weights are a run's parameters, under whatever names the file has them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from trajcheck.runs.canonical_names import canonical

#: What adapters' modules are called; the component behind is the adapter's own name, which PEFT leaves out in files.
_ADAPTERS = ("lora_", "vera_", "ia3_", "hada_", "lokr_", "oft_", "boft_", "modules_to_save")


class Matched(NamedTuple):
    """`names` are {the run's: the file's}; `missing` and `extra` those that have no counterpart, `double` pairs of the
    file's that would be one parameter; `besides` are {the run's: the file's} of those that may be there besides."""

    names: Mapping[str, str]
    missing: Sequence[str]
    extra: Sequence[str]
    double: Sequence[tuple[str, str]] = ()
    besides: Mapping[str, str] = {}

    @property
    def whole(self) -> bool:
        return not (self.missing or self.extra or self.double)


def match_weights(
    run: Collection[str], tied: Mapping[str, str], allowed: Collection[str], file: Iterable[str]
) -> Matched:
    """The run's names among those of a file.

    As they stand; without what wrappers put into names; of an adapter, without its own name; and, where one text stands
    before all names of the run, or of the file, without that. The first of these ways by which all of the run's are
    there, and nothing besides but `allowed` (frozen parameters, buffers), is taken; where none is, the one that finds
    most says what is wrong. `tied` maps a second name of a parameter to its name: either may be there.
    """
    names = list(file)
    found = [_matched(run, tied, allowed, names, inside, outside) for inside, outside in _ways(run, names)]
    whole = next((each for each in found if each.whole), None)
    return whole or max(found, key=lambda each: len(each.names))


def _ways(run: Collection[str], file: Sequence[str]) -> Iterable[tuple[Callable[[str], str], Callable[[str], str]]]:
    """How a name of the run, and one of the file, are read."""
    yield canonical, canonical
    yield _without_adapter, lambda name: _without_adapter(canonical(name))
    ours, theirs = {canonical(name) for name in run}, {canonical(name) for name in file}
    first = min(ours, default="")
    for before in sorted({name[: -len(first)] for name in theirs if name.endswith(f".{first}")}):
        yield canonical, _cut(before)
    parts = first.split(".")
    for count in range(1, len(parts)):
        before = ".".join(parts[:count]) + "."
        if all(name.startswith(before) for name in ours):
            yield _cut(before), canonical


def _cut(before: str) -> Callable[[str], str]:
    """The name without `before`; one that does not begin so stays."""
    return lambda name: canonical(name).removeprefix(before)


def _without_adapter(name: str) -> str:
    parts = name.split(".")
    kept: list[str] = []
    for at, part in enumerate(parts):
        named = at > 0 and at < len(parts) and parts[at - 1].startswith(_ADAPTERS)
        if not (named and part not in ("weight", "bias")) and part != "modules_to_save":
            kept.append(part)
    return ".".join(kept)


def _matched(
    run: Collection[str],
    tied: Mapping[str, str],
    allowed: Collection[str],
    file: Sequence[str],
    inside: Callable[[str], str],
    outside: Callable[[str], str],
) -> Matched:
    there: dict[str, str] = {}
    double = []
    for name in file:
        read = outside(name)
        if there.setdefault(read, name) != name:
            double.append((there[read], name))
    aliases: dict[str, list[str]] = {}
    for alias, name in tied.items():
        aliases.setdefault(name, []).append(alias)
    ours: dict[str, str] = {}
    names, missing = {}, []
    for name in run:
        known = next((inside(each) for each in (name, *aliases.get(name, ())) if inside(each) in there), None)
        if known is None or known in ours:
            missing.append(name)
        else:
            names[name], ours[known] = there[known], name
    taken = set(names.values())
    known_besides = {inside(each) for each in (*allowed, *tied, *tied.values())}
    extra = [name for read, name in there.items() if name not in taken and read not in known_besides]
    besides = {name: there[inside(name)] for name in allowed if inside(name) in there}
    return Matched(names, missing, extra, double, besides)
