"""The exported loss program of a run: is its archive whole?"""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path


def program_damage(path: Path) -> str | None:
    """What is wrong with it by the archive's own checksums, if anything; nothing of it is loaded."""
    if not os.path.lexists(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
            if packed:
                reason = f"{packed[0]} is compressed, which the Recorder never writes"
            else:
                broken = archive.testzip()
                reason = f"the checksum of {broken} is wrong" if broken else ""
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error, OSError) as error:
        reason = f"it is not a whole .pt2 archive ({error})"
    return f"{path}: {reason}. Copy the file again, or remove it." if reason else None
