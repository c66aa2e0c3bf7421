"""What processes that were killed have left among the reports."""

from __future__ import annotations

import os
import platform
import re
import shutil
from contextlib import suppress
from pathlib import Path

from trajcheck.files.other_processes import is_gone
from trajcheck.files.whole_files import TEMPORARY
from trajcheck.reports.making.folder import UNFINISHED

_FILE = re.compile(rf"\..+\.(\d+){re.escape(TEMPORARY)}")
_FOLDER = re.compile(rf"{re.escape(UNFINISHED + platform.node())}-(\d+)")


def remove_remains(out: Path) -> None:
    """Remove temporary files and unfinished reports of processes that are not there any more; to be called by the batch
    that holds the folder."""
    for place, folders, files in os.walk(out):
        for name in files:
            if (match := _FILE.fullmatch(name)) and is_gone(int(match[1])):
                with suppress(OSError):
                    os.unlink(os.path.join(place, name))
        for name in folders:
            if (match := _FOLDER.fullmatch(name)) and is_gone(int(match[1])):
                shutil.rmtree(os.path.join(place, name), ignore_errors=True)
