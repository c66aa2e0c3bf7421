"""Files and words changed at random: bytes, tokens, and what stands inside JSON, safetensors headers and archives."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from random import Random
from typing import Any

#: Stand for texts that json.dumps would not write.
_DEEP, _TWICE = "@deep@", "@twice@"

NAMES = [
    *(
        "",
        "/",
        "..",
        "../../x",
        "/tmp/trajcheck-outside",
        "a\0b",
        "n" * 5000,
        "\ud800",
        "tést",
        "🙂",
        "a b\n",
        "-",
        ".",
    ),
    *("param", "param/", "param//", "batch", "batch/0", "batch/00", "batch/-1", "batch/9999999999", "batch/٣", "grad/"),
    *("steps.csv", "summary.json", "run.json", "__metadata__", "metadata", "window/", "rng/cpu", "master/layer.bias"),
]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 255, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**18, 10**400),
    *(0.5, -0.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
    *([], {}, [[]], [{}], [0], [1] * 2000, [10**18] * 3, [99] * 70, {"a": 1}, {"": ""}, _DEEP, _TWICE),
    *("F32", "F64", "I64", "U8", "BF16", "BOOL", "F8_E4M3", {"tensor": ""}, {"tensor": "batch/0"}, {"value": None}),
    *({"tuple": []}, {"list": [{"value": 1}]}, {"dict": {"": {"value": 0}}}, {"from": 0, "steps": 1}, *NAMES),
]
TOKENS = [
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"[", b"]", b"{", b"}", b'"', b"\\", b",", b":", b"-", b"1e999", b"NaN"),
    *(b"9" * 30, b"9" * 5000, b"[" * 3000, b"../" * 20, b"@", b"%00", b"\r\n", b"\n", b"\xed\xa0\x80", b"::", b"mean:"),
    *(
        b"step:",
        b"final",
        b"init",
        b"best",
        b"i",
        b"GB",
        b"TiB",
        b"(a+)+",
        b"(?P<x>",
        b"0",
        b"1",
        b"18446744073709551616",
    ),
]


def mutated(data: bytes, others: Sequence[bytes], stream: Random) -> bytes:
    """`data` with one to four changes; `others` may be spliced in."""
    for _ in range(stream.choice((1, 1, 1, 2, 4))):
        data = _structured(data, stream) if stream.random() < 0.7 else _raw(data, others, stream)
    return data


def _structured(data: bytes, stream: Random) -> bytes:
    """Changed where it means something, as far as the kind of the data is known."""
    for change in (_safetensors, _archive, _json):
        try:
            return change(data, stream)
        except (ValueError, KeyError, IndexError, RecursionError, zipfile.BadZipFile, AttributeError, TypeError):
            continue
    return _raw(data, (), stream)


def _safetensors(data: bytes, stream: Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= len(data) - 8:
        raise ValueError
    head, tail = json.loads(data[8 : 8 + length]), data[8 + length :]
    metadata = head.get("__metadata__")
    if isinstance(metadata, dict) and isinstance(metadata.get("trajcheck"), str) and stream.random() < 0.6:
        metadata["trajcheck"] = _text(_changed(json.loads(metadata["trajcheck"]), stream), stream)
    else:
        head = _changed(head, stream)
    text = _text(head, stream).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + tail


def _json(data: bytes, stream: Random) -> bytes:
    return _text(_changed(json.loads(data), stream), stream).encode("utf-8", "surrogatepass")


def _archive(data: bytes, stream: Random) -> bytes:
    """One entry changed, left out, packed or renamed, with right checksums."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        chosen = stream.choice(source.namelist())
        for name in source.namelist():
            content = source.read(name)
            packing = zipfile.ZIP_STORED
            if name == chosen and (what := stream.randrange(5)) != 0:
                content = _json(content, stream) if what <= 2 and content[:1] in b"{[" else _raw(content, (), stream)
                packing = zipfile.ZIP_DEFLATED if what == 3 else packing
                name = name.rpartition("/")[0] + "/../" + name.rpartition("/")[2] if what == 4 else name
            elif name == chosen:
                continue
            target.writestr(name, content, packing)
    return out.getvalue()


def _text(value: Any, stream: Random) -> str:
    """The value as JSON, with what no JSON writer would write."""
    depth = stream.choice((150, 990, 100_000))
    text = json.dumps(value, ensure_ascii=stream.random() < 0.5)
    opening, closing = stream.choice((("[", "]"), ('{"dict":', "}"), ('{"tuple":[', "]}")))
    text = text.replace(f'"{_DEEP}"', opening * depth + "1" + closing * depth, 1).replace(
        f'"{_TWICE}"', '{"a":1,"a":2}'
    )
    return text.replace(_DEEP, "").replace(_TWICE, "")


def _changed(value: Any, stream: Random) -> Any:
    """A JSON value with one of its parts changed; the parts of large tables are as likely as the tables."""
    places = [(None, None), *_places(value)]
    holder, key = stream.choice(places)
    if holder is None:
        return stream.choice(VALUES) if stream.random() < 0.05 else value
    what = stream.randrange(7)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[stream.choice(NAMES)] = holder.pop(key) if stream.random() < 0.5 else holder[key]
    elif what == 2:
        other, name = stream.choice(places[1:])
        holder[key], other[name] = other[name], holder[key]
    elif what == 3 and isinstance(holder[key], (int, float)):
        holder[key] = stream.choice((-holder[key], holder[key] + 1, holder[key] - 1, str(holder[key]), [holder[key]]))
    elif what == 4 and isinstance(holder, list):
        holder.insert(stream.randrange(len(holder) + 1), stream.choice(VALUES))
    elif what == 5 and isinstance(holder, dict):
        holder[stream.choice(NAMES)] = stream.choice(VALUES)
    else:
        holder[key] = stream.choice(VALUES)
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every part of a JSON value."""
    found, waiting = [], [value]
    while waiting:
        each = waiting.pop()
        keys = each.keys() if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
        found += [(each, key) for key in keys]
        waiting += [each[key] for key in keys]
    return found


def _raw(data: bytes, others: Sequence[bytes], stream: Random) -> bytes:
    """Bytes flipped, set, cut, doubled, moved, or taken from elsewhere."""
    place, until = sorted(stream.randrange(len(data) + 1) for _ in range(2))
    if stream.random() < 0.5:
        until = min(until, place + stream.choice((1, 2, 4, 8, 64)))
    part = data[place:until]
    what = stream.randrange(8)
    if what == 0 and part:
        part = bytes([part[0] ^ 1 << stream.randrange(8)]) + part[1:]
    elif what == 1:
        part = stream.randbytes(len(part)) if len(part) < 65 else bytes(len(part))
    elif what == 2:
        return data[:place]
    elif what == 3:
        part = b""
    elif what == 4:
        part *= stream.choice((2, 3, 50)) if len(part) < 5000 else 2
    elif what == 5 and others:
        other = stream.choice(others)
        part = other[stream.randrange(len(other) + 1) :]
    elif what == 6 and place + 8 <= len(data):
        number = stream.choice((0, 1, 2**31 - 1, 2**32, 2**63 - 1, 2**64 - 1, len(data), 10**8 + 1))
        return data[:place] + number.to_bytes(8, "little") + data[place + 8 :]
    else:
        part = stream.choice(TOKENS)
    return data[:place] + part + data[until:]
