"""Files that are there whole or not at all (folders.py), by their paths: the folder may be a link, the file is none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trajcheck.files.folders import Block, OpenFolder
from trajcheck.files.opening import opened


def json_bytes(value: Any) -> bytes:
    """As JSON files of trajcheck are written."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all. Raises OSError."""
    write_bytes(path, json_bytes(value))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises OSError; nothing is then left under either name."""
    write_blocks(path, [data])


def write_blocks(path: Path, blocks: Iterable[Block]) -> None:
    """`write_bytes` of the blocks one after the other."""
    with OpenFolder.at(path.parent) as folder:
        folder.write(path.name, blocks)


def is_written(path: Path, data: bytes) -> bool:
    """Whether a regular file holds these bytes already."""
    try:
        with opened(path) as file:
            return file.read(len(data) + 1) == data
    except OSError:
        return False
