"""What people read: anybody's text in one line, numbers of bytes, seconds and steps, and lists of names, in words."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

#: Characters of one line that are shown.
LONGEST = 4000


def plain(words: object, most: int = LONGEST) -> str:
    """Anybody's words as they can be shown: in one line, of at most `most` characters, without what acts on a terminal,
    a log or a page.

    A letter that cannot be printed, a line break or an escape as well as a mark of writing direction or half a letter,
    is shown as its number, `\\x1b` or `\\u202e`; a byte of a name that is no UTF-8 as `\\xff`. Of a longer text the
    middle is left out, and how much it was is said. Plain text stays as it is, so that doing it twice does no harm.
    """
    text = str(words)
    text = _shortened(text, most)
    if text.isprintable():
        return text
    return _shortened("".join(each if _is_shown(each) else _number(each) for each in text), most)


def _is_shown(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"  # a blank of some width


def one_line(words: object, most: int = LONGEST) -> str:
    """As `plain`, with one blank for whatever space there is: for words that are no name of anything."""
    return plain(" ".join(str(words).split()), most)


def _number(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that Python could not decode
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape", "surrogatepass").decode()


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    gap = f" [... {len(text):,} characters in all ...] "
    if most < 3 * len(gap):
        return text[: most - 1] + "…" if most > 0 else ""
    end = most // 4
    return text[: most - end - len(gap)] + gap + text[-end:]


def in_lines(lines: Iterable[object]) -> str:
    """Lines one below the other, each of them `plain`: a name that holds a line break begins none."""
    return "\n".join(map(plain, lines))


def size_text(count: float) -> str:
    """Bytes, as 1.2 MB, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def time_text(seconds: float) -> str:
    """As 0.4 s, 12 s, 3.5 min, 14 h."""
    if seconds < 60:
        value, unit = seconds, "s"
    elif seconds < 3600:
        value, unit = seconds / 60, "min"
    else:
        value, unit = (seconds / 3600, "h") if seconds < 72 * 3600 else (seconds / 86400, "days")
    return f"{value:.0f} {unit}" if value >= 9.5 else f"{value:.2g} {unit}"


def percent_text(share: float, digits: int) -> str:
    """As 1.2%, 100%, 1230%: of so many digits that count, and never as a power of ten."""
    value = float(f"{100 * share:.{digits}g}")
    return f"{value:.0f}%" if abs(value) >= 10**digits else f"{value:.{digits}g}%"


def runs_of_steps(steps: Sequence[int], recorded: Sequence[int]) -> str:
    """Steps as text, `0, 3-17, 20`: a-b stands for all recorded steps from a to b."""
    place = {step: index for index, step in enumerate(recorded)}
    parts: list[list[int]] = []
    for step in steps:
        if parts and place[step] == place[parts[-1][-1]] + 1:
            parts[-1] = [parts[-1][0], step]
        else:
            parts.append([step, step])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def some_of(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
