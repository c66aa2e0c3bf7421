"""Ranges of remote files brought into memory that is read as a file is: through a descriptor, by whoever reads files.

What was brought before is overwritten, so that the memory is that of the largest call.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

from trajcheck.errors import StepFileError
from trajcheck.files.remote.file import RemoteFile, remote_file
from trajcheck.files.remote.ranges import at_once

#: Ranges of one file with at most so many bytes between them are asked for together, up to so many bytes.
NEAR, REQUEST = 65_536, 8_388_608


class _Request(NamedTuple):
    file: RemoteFile
    start: int
    stop: int
    place: int


class Staging:
    """For one thread."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("trajcheck-remote", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:  # unlinked
                self.descriptor = os.dup(file.fileno())

    def __del__(self) -> None:
        os.close(self.descriptor)

    def bring(self, ranges: Sequence[tuple[str, int, int]]) -> list[int]:
        """Fetch ranges (address, offset, length), several at once; where each then lies. Raises StepFileError."""
        order = sorted(range(len(ranges)), key=lambda number: ranges[number][:2])
        places = [0] * len(ranges)
        requests: list[_Request] = []
        path, start, stop, filled = "", 0, 0, 0
        group: list[int] = []

        def close() -> None:
            nonlocal filled
            if group:
                file = remote_file(path)
                assert file is not None
                for begin in range(start, stop, REQUEST):
                    end = min(stop, begin + REQUEST)
                    requests.append(_Request(file, begin, end, filled + begin - start))
                for number in group:
                    places[number] = filled + ranges[number][1] - start
                filled += stop - start
                group.clear()

        for number in order:
            its, offset, length = ranges[number]
            if its != path or offset > stop + NEAR:
                close()
                path, start, stop = its, offset, offset
            stop = max(stop, offset + length)
            group.append(number)
        close()
        os.ftruncate(self.descriptor, filled)
        at_once(self._fetch, requests)
        return places

    def _fetch(self, request: _Request) -> None:
        if request.stop > request.file.size:
            raise StepFileError(f"{request.file.path}: ends before byte {request.stop:,}, where a tensor is to end.")
        data = memoryview(request.file.fetch(request.start, request.stop - request.start))
        done = 0
        while done < len(data):
            done += os.pwrite(self.descriptor, data[done:], request.place + done)
