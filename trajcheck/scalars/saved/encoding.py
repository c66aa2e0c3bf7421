"""Records as bytes and back: a safetensors file of float64 tables, NaN where a value is None.

Records with the same fields stand in one table; `index` is JSON that says which. Numbers come back bit by bit. A file
is called by the hash of its bytes, so that one that was damaged is known without being believed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from trajcheck.scalars.saved.record import Record, TensorShares, Values

FORMAT = 1
KEY = 16  # bytes of a record's key

#: The fields of values; single tensors, and the fields of their shares.
Table = tuple[tuple[str, ...], tuple[str, ...] | None, tuple[str, ...]]


class DamagedError(Exception):
    """Bytes that are not those of a file of records."""


def encode(records: Mapping[bytes, Record]) -> bytes:
    """The bytes of a file of records; the same for the same records, whatever their order."""
    from safetensors.numpy import save

    tables: dict[Table, list[bytes]] = {}
    for key in sorted(records):
        record = records[key]
        names = None if record.shares is None else tuple(record.shares.tensors)
        table = tuple(sorted(record.values)), names, tuple(sorted(record.share_fields))
        tables.setdefault(table, []).append(key)
    index: list[dict[str, Any]] = []
    tensors: dict[str, np.ndarray] = {}
    for number, (table, keys) in enumerate(sorted(tables.items(), key=lambda each: each[1][0])):
        fields, names, share_fields = table
        found = [records[key] for key in keys]
        words = sorted({record.word for record in found})
        place = {word: at for at, word in enumerate(words)}
        index.append({"fields": fields, "tensors": names, "share_fields": share_fields, "words": words})
        tensors[f"{number}/keys"] = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY)
        tensors[f"{number}/values"] = _numbers([record.values for record in found], fields)
        tensors[f"{number}/words"] = np.array([place[record.word] for record in found], dtype=np.int32)
        if names is not None:
            shares = [record.shares.of(share_fields) for record in found if record.shares is not None]
            rows = [
                [math.nan if value is None else value for value in each.tensors[n]] for each in shares for n in names
            ]
            shape = len(found), len(names), len(share_fields)
            tensors[f"{number}/shares"] = np.array(rows, dtype=np.float64).reshape(shape)
    text = json.dumps({"format": FORMAT, "tables": index}).encode()
    return save({**tensors, "index": np.frombuffer(text, dtype=np.uint8)})


def decode(data: bytes) -> dict[bytes, Record]:
    """The records of a file. Raises DamagedError for bytes that `encode` did not make."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
        index = json.loads(tensors["index"].tobytes())
        if index["format"] != FORMAT:
            raise ValueError(f"format {index['format']!r}; expected {FORMAT}")
        records: dict[bytes, Record] = {}
        for number, table in enumerate(index["tables"]):
            records.update(_read(tensors, number, table))
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise DamagedError(f"not a file of saved scalars: {error}") from error
    return records


def name_of(data: bytes) -> str:
    """What a file of these bytes is called."""
    return f"{hashlib.blake2b(data, digest_size=16).hexdigest()}.safetensors"


def _numbers(rows: list[Values], fields: tuple[str, ...]) -> np.ndarray:
    values = [math.nan if (value := row[name]) is None else value for row in rows for name in fields]
    return np.array(values, dtype=np.float64).reshape(len(rows), len(fields))


def _read(tensors: Mapping[str, np.ndarray], number: int, table: Mapping[str, Any]) -> dict[bytes, Record]:
    fields, names, words, of_shares = table["fields"], table["tensors"], table["words"], table["share_fields"]
    for strings in (fields, words, of_shares, *(() if names is None else (names,))):
        if not isinstance(strings, list) or not all(isinstance(each, str) for each in strings):
            raise ValueError("a table's fields, tensors or words are not strings")
    keys = _checked(tensors[f"{number}/keys"], np.uint8, (-1, KEY))
    count = len(keys)
    values = _checked(tensors[f"{number}/values"], np.float64, (count, len(fields))).tolist()
    places = _checked(tensors[f"{number}/words"], np.int32, (count,)).tolist()
    shares: list[Any] = [None] * count
    if names is not None:
        shares = _checked(tensors[f"{number}/shares"], np.float64, (count, len(names), len(of_shares))).tolist()
    found = {}
    for key, row, place, parts in zip(keys, values, places, shares, strict=True):
        if place < 0:
            raise ValueError("a word's place is negative")
        each = (
            None if parts is None else TensorShares(tuple(of_shares), dict(zip(names, map(_known, parts), strict=True)))
        )
        found[key.tobytes()] = Record(dict(zip(fields, _known(row), strict=True)), words[place], each)
    return found


def _known(values: list[float]) -> tuple[float | None, ...]:
    return tuple([None if value != value else value for value in values])


def _checked(array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    expected = tuple(found if wanted < 0 else wanted for found, wanted in zip(array.shape, shape, strict=True))
    if array.dtype != dtype or array.shape != expected:
        raise ValueError(f"a table of {array.dtype} {array.shape}; expected {np.dtype(dtype)} {shape}")
    return array
