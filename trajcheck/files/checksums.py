"""Checksums in a file's own metadata: {tensor: crc32 of its bytes}, and one of all the other metadata.

The header says what the bytes mean, so a loss or a rate with a flipped bit matters as much as a weight with one. What
the metadata say besides is therefore summed up under the name `metadata`, which no tensor of a run has.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

KEY, METADATA = "checksum", "metadata"


def with_checksums(metadata: Mapping[str, Any], tensors: Mapping[str, memoryview]) -> dict[str, Any]:
    """The metadata of a file with the checksums of its tensors and of itself."""
    sums = {name: zlib.crc32(data) for name, data in tensors.items()}
    return {**metadata, KEY: {**sums, METADATA: metadata_checksum(metadata)}}


def stored_checksums(metadata: Mapping[str, Any]) -> dict[str, int]:
    """The checksums that a file's metadata hold; none is an empty table. Raises ValueError where they are no such."""
    found = metadata.get(KEY)
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(type(value) is int for value in found.values()):
        raise ValueError(f"metadata {KEY!r} is {found!r:.60}; expected {{tensor: crc32}}")
    return found


def metadata_checksum(metadata: Mapping[str, Any]) -> int:
    """crc32 of the metadata without their checksums: JSON, keys in order, no spaces."""
    rest = json.loads(json.dumps({key: value for key, value in metadata.items() if key != KEY}))
    return zlib.crc32(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())
