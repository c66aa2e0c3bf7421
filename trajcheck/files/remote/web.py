"""Ranges over HTTP. Every answer is held against what was asked for, and against the answers before."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, NamedTuple

from trajcheck.errors import RunError, StepFileError
from trajcheck.files.remote.ranges import AgainError, Source, tried
from trajcheck.readable import plain

#: Seconds without a byte, and bytes a second at the least over a whole answer.
SILENCE, SLOWEST = 30.0, 20_000
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Answer(NamedTuple):
    """A part of a file. `total` bytes has the whole, `mark` tells its state from another, `sha256` is that of the
    whole where the server says it."""

    data: bytes
    total: int
    mark: str
    sha256: str | None


def get_range(url: str, shown: str, start: int, length: int, headers: Mapping[str, str] | None = None) -> Answer:
    """One request. Redirects are followed as huggingface_hub's client follows them: without the credentials, where they
    lead to another host. Raises AgainError, StepFileError."""
    client, failures = _client()
    asked = {**(headers or {}), "Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
    until = time.monotonic() + SILENCE + length / SLOWEST
    try:
        with client.stream("GET", url, headers=asked, timeout=SILENCE, follow_redirects=True) as response:
            total = _checked(response, shown, start, length)
            data = bytearray()
            for part in response.iter_raw():
                data += part
                if len(data) > length:
                    raise StepFileError(f"{shown}: the server gives more than the {length:,} bytes it was asked for.")
                if time.monotonic() > until:
                    raise AgainError("the answer is too slow")
            linked = [each.headers.get("x-linked-etag", "") for each in (*response.history, response)]
            hashes = [match[0] for each in linked if (match := _SHA256.search(each))]
            said = response.headers
            mark = said.get("etag", "").removeprefix("W/") or said.get("last-modified", "")
            return Answer(bytes(data), total, mark[:200], hashes[0] if hashes else None)
    except failures as error:
        raise AgainError(plain(error)[:200] or type(error).__name__) from error


def _checked(response: Any, shown: str, start: int, length: int) -> int:
    """The size of the whole file."""
    status = response.status_code
    if status in _AGAIN:
        asked = response.headers.get("retry-after", "")
        raise AgainError(f"the server answers {status}", float(asked) if re.fullmatch(r"\d{1,4}", asked) else None)
    if status in (401, 403):
        raise StepFileError(f"{shown}: the server does not give it to you ({status}). Is it private, and a token set?")
    if status == 416:
        raise StepFileError(f"{shown}: has no byte {start:,}: it is shorter than the listing says.")
    if status == 200:
        raise StepFileError(f"{shown}: the server gives whole files alone, no ranges of them. Download it.")
    if status != 206:
        raise StepFileError(f"{shown}: the server answers {status}.")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise StepFileError(f"{shown}: the server packs its answers, which was not asked for.")
    match = _RANGE.fullmatch(response.headers.get("content-range", ""))
    if match is None or int(match[1]) != start or not start <= int(match[2]) < start + length:
        raise StepFileError(f"{shown}: the server gives another range than it was asked for.")
    return int(match[3])


def _client() -> tuple[Any, tuple[type[Exception], ...]]:
    """huggingface_hub's, which knows about proxies and certificates, and what it raises when a connection fails."""
    hub = needed("huggingface_hub")
    client = hub.get_session()
    module = __import__(type(client).__module__.partition(".")[0])
    return client, (module.TransportError, module.TooManyRedirects, module.DecodingError)


def needed(package: str) -> Any:
    """A package of the extra `remote`. Raises RunError."""
    try:
        return __import__(package)
    except ImportError as error:
        raise RunError(
            f"files that are not on this machine are read with {package}: pip install 'trajcheck[remote]'"
        ) from error


class WebSource(Source):
    """Files by their URLs, `key`. `headers`: those of every request to them."""

    def __init__(self, headers: Callable[[], Mapping[str, str]] = dict) -> None:
        super().__init__()
        self._headers = headers
        self.sha256: dict[str, str] = {}  # of files, by their URLs, as a listing says them
        self._marks: dict[str, str] = {}
        self._lock = Lock()

    def once(self, key: str, shown: str, size: int, start: int, length: int) -> bytes:
        answer = get_range(key, shown, start, length, self._headers())
        if answer.total != size:
            raise StepFileError(f"{shown}: has {answer.total:,} bytes, and {size:,} by the listing.")
        if answer.sha256 and self.sha256.get(key, answer.sha256) != answer.sha256:
            raise StepFileError(f"{shown}: is another file than the listing says (its sha256 is {answer.sha256}).")
        with self._lock:
            if self._marks.setdefault(key, answer.mark) != answer.mark:
                raise RunError(f"{shown}: was changed while it was being read. Begin again.")
        return answer.data


def web_file(url: str) -> tuple[int, str]:
    """The size of the file at a URL, and what tells its state. Raises StepFileError."""
    answer = tried(url, lambda: get_range(url, url, 0, 1))
    return answer.total, answer.mark
